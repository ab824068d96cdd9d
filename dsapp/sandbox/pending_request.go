package sandbox

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"slices"
	"time"
)

// Chosen by the sandbox.
const (
	requestKeyDigits = 10
	maxPending       = 1200 // pending requests of one server
)

// Push is a push notification. In a real one, the key is part of a secure-channel
// message.
type Push struct {
	Kind Kind `json:"kind"`
	// SerialNumber is that of the authenticator instance.
	SerialNumber string `json:"serialNumber"`
	// NotificationID is the last notification ID of the device.
	NotificationID string `json:"notificationID"`
	// Key is the challenge key or request key.
	Key     string    `json:"key"`
	Title   string    `json:"title"`
	Message string    `json:"message"`
	SentAt  time.Time `json:"sentAt"`
}

// Pushes returns the last 20 push notifications of a device, or of each device if the
// serial number is empty, the oldest first. They include those of requests that have
// ended. Replicas share them.
func (s *Server) Pushes(serialNumber string) []Push {
	s.mu.Lock()
	defer s.mu.Unlock()
	pushes := []Push{}
	for _, u := range s.users {
		for _, i := range u.withSecureChannel(serialNumber) {
			pushes = append(pushes, i.pushes...)
		}
	}
	slices.SortStableFunc(pushes, func(a, b Push) int { return a.SentAt.Compare(b.SentAt) })
	return pushes
}

// An outcome is the state of a pending request.
type outcome int

const (
	waiting outcome = iota
	completed
	cancelled
	timedOut
	abandoned // the application server has closed the connection
)

// A pendingRequest is a login or signature that waits for its device. Only its first
// outcome counts.
type pendingRequest struct {
	request    Request
	content    []byte // what the device signs
	user       *user
	candidates []*authenticatorInstance
	retriever  *authenticatorInstance // nil until a device retrieved the request
	signer     *authenticatorInstance // of a completed request
	created    time.Time
	awaited    bool // a call of an application server waits for it
	outcome    outcome
	done       chan struct{} // closed when outcome is set
}

// addRequest adds a request to the pending ones. Only the candidates may retrieve it.
func (s *Server) addRequest(u *user, candidates []*authenticatorInstance, kind Kind, title string, fields []RequestField) (*pendingRequest, error) {
	s.expire()
	if len(candidates) == 0 {
		return nil, refuse("STAT_NOT_FOUND", 0, "No applicable digipass found")
	}
	if len(s.pending) >= maxPending {
		return nil, refuse("STAT_MEMORY", 0, "the cache is full")
	}
	key := newRequestKey()
	for s.pending[key] != nil {
		key = newRequestKey()
	}
	p := &pendingRequest{
		request:    Request{Kind: kind, Key: key, UserID: u.Name, Domain: u.Domain, Title: title, Fields: fields},
		user:       u,
		candidates: candidates,
		created:    s.now(),
		done:       make(chan struct{}),
	}
	var err error
	if p.content, err = p.request.content(); err != nil {
		return nil, err
	}
	s.pending[key] = p
	return p, nil
}

// pushRequest adds a request and sends push notifications to its devices.
func (s *Server) pushRequest(u *user, serial string, kind Kind, title string, fields []RequestField) (*pendingRequest, error) {
	candidates := slices.DeleteFunc(u.withSecureChannel(serial), func(i *authenticatorInstance) bool { return i.notificationID == "" })
	p, err := s.addRequest(u, candidates, kind, title, fields)
	if err != nil {
		return nil, err
	}
	message := "A login waits for your approval."
	if kind == KindSignature {
		message = "A transaction waits for your signature."
	}
	for _, i := range candidates {
		if len(i.pushes) == maxPushes {
			i.pushes = slices.Delete(i.pushes, 0, 1)
		}
		i.pushes = append(i.pushes, Push{kind, i.serial, i.notificationID, p.request.Key, title, message, p.created})
	}
	return p, nil
}

// prepareRequest adds a request whose key a device will scan, and returns the request
// message. The request is for the authenticator with the serial number, or for the last
// one that was activated if that is empty.
func (s *Server) prepareRequest(u *user, serial string, kind Kind, title string, fields []RequestField) (*pendingRequest, string, error) {
	candidates := u.withSecureChannel(serial)
	p, err := s.addRequest(u, candidates[max(len(candidates)-1, 0):], kind, title, fields)
	if err != nil {
		return nil, "", err
	}
	message, err := p.candidates[0].channel().sealRequest(p.content)
	return p, message, err
}

// findRequest returns a pending request.
func (s *Server) findRequest(kind Kind, key string) (*pendingRequest, error) {
	s.expire()
	p, ok := s.pending[key]
	if !ok || p.request.Kind != kind {
		return nil, refuse("STAT_NOT_FOUND", 0, "no pending request with this key")
	}
	return p, nil
}

// findRequestOf returns a pending request of a user.
func (s *Server) findRequestOf(u *user, kind Kind, key string) (*pendingRequest, error) {
	p, err := s.findRequest(kind, key)
	if err == nil && p.user != u {
		return nil, refuse("STAT_NOT_FOUND", 0, "no pending request with this key")
	}
	return p, err
}

// retrieve returns the request message, once. An authenticator that is no candidate gets a
// refusal, and the request stays retrievable; the behaviour of a real server is not
// public.
func (s *Server) retrieve(kind Kind, serial, key string) (message string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, err := s.findRequest(kind, key)
	if err != nil {
		return "", err
	}
	if p.retriever != nil {
		return "", refuse("STAT_NOT_FOUND", 0, "the key was used already")
	}
	for _, i := range p.candidates {
		if i.serial == serial {
			p.retriever = i
			return i.channel().sealRequest(p.content)
		}
	}
	return "", refuse("STAT_NOT_FOUND", 0, "no pending request with this key for this authenticator")
}

// cancel ends a request that the authenticator has retrieved. The key is wrapped in an
// information message of the authenticator, or plain, since older documentation allows
// both readings.
func (s *Server) cancel(kind Kind, serial, key string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !validKey(key) {
		var device *authenticatorInstance
		for _, u := range s.users {
			for _, i := range u.withSecureChannel(serial) {
				device = i
			}
		}
		if device == nil {
			return refuse("STAT_NOSUPPORT", 0, "no activated authenticator with this serial number")
		}
		content, err := device.channel().open(informationFlags, wrappedKeyContent, key)
		if err != nil {
			return refuse("STAT_NOSUPPORT", 0, err.Error())
		}
		key = string(content)
	}
	p, err := s.findRequest(kind, key)
	if err != nil {
		return err
	}
	if p.retriever == nil || p.retriever.serial != serial {
		return refuse("STAT_NOSUPPORT", 0, "the request was not retrieved by this authenticator")
	}
	s.end(p, cancelled)
	return nil
}

// complete verifies the signature over a request and ends the request. A request that was
// not retrieved can be completed, too, as a device may have scanned its message.
func (s *Server) complete(p *pendingRequest, signature string) error {
	signers := p.candidates
	if p.retriever != nil {
		signers = []*authenticatorInstance{p.retriever}
	}
	for _, i := range signers {
		if subtle.ConstantTimeCompare([]byte(signRequest(i.key[:], p.request.Kind, p.content)), []byte(signature)) == 1 {
			p.user.wrongPasswords = 0
			p.signer = i
			s.end(p, completed)
			return nil
		}
	}
	return p.user.recordFailure("STAT_OTP_INCORRECT", frameworkNotVerified, "signature is wrong")
}

// end sets the outcome of a request unless it has one.
func (s *Server) end(p *pendingRequest, o outcome) {
	if p.outcome != waiting {
		return
	}
	p.outcome = o
	close(p.done)
	delete(s.pending, p.request.Key)
}

// await blocks until a request ends, its timeout is over or ctx is done. It returns the
// authenticator that completed the request. The statuses for other requests are not
// public; the sandbox chose STAT_ERROR for a cancelled request and STAT_EXP_CHALLENGE after
// the timeout.
func (s *Server) await(ctx context.Context, p *pendingRequest) (*authenticatorInstance, error) {
	s.mu.Lock()
	if p.awaited {
		s.mu.Unlock()
		return nil, refuse("STAT_EXISTS", 0, "another call waits for this request")
	}
	p.awaited = true
	timer := time.NewTimer(s.requestTimeout - s.now().Sub(p.created))
	s.mu.Unlock()
	defer timer.Stop()

	o := abandoned
	select {
	case <-p.done:
	case <-timer.C:
		o = timedOut
	case <-ctx.Done():
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	s.end(p, o)
	switch p.outcome {
	case completed:
		return p.signer, nil
	case cancelled:
		return nil, refuse("STAT_ERROR", 0, "the request was rejected on the device")
	case timedOut:
		return nil, refuse("STAT_EXP_CHALLENGE", 0, "the device did not answer in time")
	default:
		return nil, refuse("STAT_COMMS", 0, "the caller is gone")
	}
}

// newRequestKey returns 10 random decimal digits. The first may be 0.
func newRequestKey() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return fmt.Sprintf("%0*d", requestKeyDigits, binary.BigEndian.Uint64(b[:])%1e10)
}
