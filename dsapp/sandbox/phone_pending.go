package sandbox

import (
	"context"
	"errors"
	"fmt"
)

// RetrievedRequest is a pending login or signature that a phone has retrieved.
type RetrievedRequest struct {
	// Message is the encrypted request message in hex.
	Message string
	Request Request
}

// AuthenticatedUser is the user of a completed login or signature. It is zero with version 1
// of the REST services, whose answers lack it.
type AuthenticatedUser struct {
	UserID             string
	Domain             string
	OrganizationalUnit string
	// SerialNumber of the authenticator instance.
	SerialNumber string
}

// requestServices are the services for one kind of pending requests.
type requestServices struct {
	retrieve, complete, cancel string // paths
	serial, key, message       string // names of members
	cancelKey                  string
	flat                       bool
}

// services returns the services for a kind of pending requests.
func (p *Phone) services(kind Kind) (requestServices, error) {
	v, err := p.version()
	if err != nil {
		return requestServices{}, err
	}
	if v.flat {
		if kind != KindLogin || p.Scan {
			return requestServices{}, errors.New("version 1 of the REST services knows nothing but logins by push")
		}
		return requestServices{
			retrieve: "/rest/push/retrieveLogin", complete: "/rest/push/signLogin", cancel: "/rest/push/cancelLogin",
			serial: "digipassInstanceID", key: "challengeKey", message: "encryptedLoginDetails", cancelKey: "encryptedChallengeKey",
			flat: true,
		}, nil
	}
	channel := "push/"
	if p.Scan {
		channel = "scan/"
	}
	switch kind {
	case KindLogin:
		base := "/rest/v2/authentication/" + channel
		return requestServices{
			retrieve: base + "getPreparedSecureChallenge", complete: base + "authUser", cancel: base + "cancelAuthUser",
			serial: "serialNumber", key: "challengeKey", message: "requestMessage", cancelKey: "challengeKey",
		}, nil
	case KindSignature:
		base := "/rest/v2/signature/" + channel
		return requestServices{
			retrieve: base + "getPreparedSignatureRequest", complete: base + "authSignature", cancel: base + "cancelAuthSignatureRequest",
			serial: "serialNumber", key: "requestKey", message: "requestMessage", cancelKey: "requestKey",
		}, nil
	default:
		return requestServices{}, fmt.Errorf("kind of requests is neither %s nor %s", KindLogin, KindSignature)
	}
}

// Retrieve retrieves the pending request with a challenge key or request key and decrypts
// it. A request can be retrieved once. The errors are those of Activate.
func (p *Phone) Retrieve(ctx context.Context, kind Kind, a *Authenticator, key string) (RetrievedRequest, error) {
	s, err := p.services(kind)
	if err != nil {
		return RetrievedRequest{}, err
	}
	var pending RetrievedRequest
	err = p.do(ctx, p.APIKey, call{
		path: s.retrieve,
		flat: s.flat,
		sent: []Member{{s.serial, a.SerialNumber}, {s.key, key}},
		check: func(r answer) ([]string, error) {
			if pending.Message, err = r.text(s.message); err != nil {
				return nil, err
			}
			if pending.Request, err = a.Open(pending.Message); err != nil {
				return nil, unverified(err)
			}
			if pending.Request.Kind != kind || pending.Request.Key != key {
				return nil, unverified(errors.New("request message is for another request"))
			}
			return []string{"the request message is intact, for this device and for this request"}, nil
		},
	})
	if err != nil {
		return RetrievedRequest{}, err
	}
	return pending, nil
}

// Complete approves a retrieved request: it signs the request message and sends the
// signature and the user of the message. The errors are those of Activate.
func (p *Phone) Complete(ctx context.Context, kind Kind, a *Authenticator, pending RetrievedRequest) (AuthenticatedUser, error) {
	s, err := p.services(kind)
	if err != nil {
		return AuthenticatedUser{}, err
	}
	signature, err := a.Sign(pending.Message)
	if err != nil {
		return AuthenticatedUser{}, err
	}
	sent := append(userMembers(pending.Request.UserID, pending.Request.Domain), Member{s.key, pending.Request.Key}, Member{"signature", signature})
	return p.authenticate(ctx, a, call{path: s.complete, flat: s.flat, sent: sent})
}

// Cancel cancels a retrieved request. It sends the key wrapped for the authentication
// server, or, if wrapped is false, in plain, as older documentation seems to require. The
// errors are those of Activate.
func (p *Phone) Cancel(ctx context.Context, kind Kind, a *Authenticator, key string, wrapped bool) error {
	s, err := p.services(kind)
	if err != nil {
		return err
	}
	if wrapped {
		if key, err = a.WrapKey(key); err != nil {
			return err
		}
	}
	return p.do(ctx, p.APIKey, call{
		path: s.cancel,
		flat: s.flat,
		sent: []Member{{s.serial, a.SerialNumber}, {s.cancelKey, key}},
	})
}

// Authenticate logs the user of the authenticator in with its next one-time password,
// which is used up even on failure. The errors are those of Activate.
func (p *Phone) Authenticate(ctx context.Context, a *Authenticator) (AuthenticatedUser, error) {
	v, err := p.version()
	if err != nil {
		return AuthenticatedUser{}, err
	}
	c := call{path: "/rest/v2/authentication/authUser"}
	password := Member{"password", a.OneTimePassword()}
	if v.flat {
		c.path, c.flat, password.Name = "/rest/auth/online", true, "otp"
	}
	c.sent = append(userMembers(a.UserID, a.Domain), password)
	return p.authenticate(ctx, a, c)
}

// UpdateNotificationID sends the ID of the phone in the push service. The answers of both
// versions have the form of version 2. The errors are those of Activate.
func (p *Phone) UpdateNotificationID(ctx context.Context, a *Authenticator, id string) error {
	v, err := p.version()
	if err != nil {
		return err
	}
	c := call{path: "/rest/v2/notification/push/updateNotificationID"}
	if v.flat {
		c.path = "/rest/notification/updateNotificationID"
	}
	wrapped, err := a.WrapNotificationID(id)
	if err != nil {
		return err
	}
	c.sent = []Member{
		{"userID", a.UserID}, {"domain", a.Domain}, {"digipassInstanceID", a.SerialNumber}, {"encryptedNotificationID", wrapped},
	}
	return p.do(ctx, p.APIKey, c)
}

// authenticate performs a call whose answer names the authenticated user.
func (p *Phone) authenticate(ctx context.Context, a *Authenticator, c call) (AuthenticatedUser, error) {
	var done AuthenticatedUser
	if !c.flat {
		c.check = func(r answer) ([]string, error) {
			for _, m := range []struct {
				name string
				to   *string
			}{
				{"userID", &done.UserID}, {"domain", &done.Domain}, {"orgUnit", &done.OrganizationalUnit},
			} {
				var err error
				if *m.to, err = r.text(m.name); err != nil {
					return nil, err
				}
			}
			if _, ok := r.data["serialNo"]; !ok {
				return nil, nil
			}
			var err error
			if done.SerialNumber, err = r.text("serialNo"); err != nil {
				return nil, err
			}
			if done.SerialNumber != a.SerialNumber {
				return nil, unverified(errors.New("serialNo is not that of this device"))
			}
			return []string{"the serial number is that of this device"}, nil
		}
	}
	if err := p.do(ctx, p.APIKey, c); err != nil {
		return AuthenticatedUser{}, err
	}
	return done, nil
}

// userMembers returns the members that identify a user.
func userMembers(userID, domain string) []Member {
	members := []Member{{"userID", userID}}
	if domain != "" {
		members = append(members, Member{"domain", domain})
	}
	return members
}
