package activation

// Checks of a Service over any store, for stores that import this package.
var (
	CheckStorm = checkStorm
	CheckModel = checkModel
	CheckTime  = checkTime

	CheckContention = checkContention
)
