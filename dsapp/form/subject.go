package form

// Subject says to which user and device a registration or a request belongs, and which
// instance of the authentication server holds it. Fields that are unknown or do not apply
// are empty.
type Subject struct {
	UserID, Domain, SerialNumber, Instance string
}
