package repeat

// MarkOf returns the mark of a call.
func (c *Call) MarkOf() Mark { return c.mark }
