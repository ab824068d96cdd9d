package caddymodule

import "time"

// The answers of the admin endpoint. The commands of `caddy dsapp` print them with `--json`.
type (
	// AdminStatus is the answer to `GET /dsapp/status`.
	AdminStatus struct {
		// Version of the gateway and of Caddy.
		Version string `json:"version"`
		Caddy   string `json:"caddy"`
		// Started is when the process, and Loaded when the configuration began to run.
		Started time.Time `json:"started"`
		Loaded  time.Time `json:"loaded"`
		// Exchange, Deployment and Store are the options of the configuration of these names.
		Exchange   string `json:"exchange"`
		Deployment string `json:"deployment"`
		Store      string `json:"store"`
		// Instances and Keys are the numbers of authentication servers and of API keys.
		Instances int `json:"instances"`
		Keys      int `json:"keys"`
		// State, Ready and Checks are as in `/dsapp/health/ready`.
		State  string  `json:"state"`
		Ready  bool    `json:"ready"`
		Checks []Check `json:"checks"`
	}

	// AdminInstance is an authentication server in the answer to `GET /dsapp/instances`.
	AdminInstance struct {
		Name string `json:"name"`
		URL  string `json:"url"`
		// State is `working`, `failing` or `drained`.
		State string `json:"state"`
		// Breaker is `closed`, `open` or `half_open`.
		Breaker string `json:"breaker"`
		// BreakerSince is when the breaker last opened or closed.
		BreakerSince time.Time `json:"breaker_since,omitzero"`
		// InUse is the number of commands in progress, Queued of those that wait.
		InUse  int `json:"in_use"`
		Queued int `json:"queued"`
		// LastReached and LastLost are when a command or probe last reached the instance
		// and last got no connection.
		LastReached time.Time `json:"last_reached,omitzero"`
		LastLost    time.Time `json:"last_lost,omitzero"`
	}

	// AdminRegistration is the answer to `GET /dsapp/registrations/{identifier}`.
	AdminRegistration struct {
		Identifier string `json:"identifier"`
		// Kind is `mdl`, `standard` or `affinity`.
		Kind string `json:"kind"`
		// State is `pending`, `proven` after a successful exchange, `burned`, or `ended`.
		State string `json:"state"`
		// Expires is the end of its lifetime.
		Expires  time.Time `json:"expires"`
		Instance string    `json:"instance"`
		// Attempts are the wrong proofs, including those in flight.
		Attempts    int `json:"attempts"`
		MaxAttempts int `json:"max_attempts"`
		InFlight    int `json:"in_flight"`
		// Activations are the successful proofs.
		Activations    int `json:"activations"`
		MaxActivations int `json:"max_activations"`
		// Devices is how many devices may still be added, with `affinity` how many calls to
		// add one were refused or are in progress.
		Devices int `json:"devices"`
		// Confirmations is the number of final calls, with `affinity` of those that were
		// refused or are in progress.
		Confirmations int `json:"confirmations"`
	}

	// AdminRequest is a pending request in the answer to `GET /dsapp/requests`.
	AdminRequest struct {
		// Kind is `login` or `signature`.
		Kind string `json:"kind"`
		// Key is the beginning of the key, because the whole key could cancel the request.
		Key         string `json:"key"`
		Application string `json:"application"`
		Instance    string `json:"instance"`
	}

	// AdminKey is an API key in the answer to `GET /dsapp/keys`.
	AdminKey struct {
		Name  string   `json:"name"`
		Class string   `json:"class"`
		Allow []string `json:"allow"`
		// Hash is the first 8 hexadecimal digits of the SHA-256 of the key.
		Hash string `json:"hash"`
		// LastUsed is when this node last got a request with the key, absent if it got none
		// since the process started.
		LastUsed time.Time `json:"last_used,omitzero"`
	}

	// AdminSealing is the answer to `GET /dsapp/seal-usage`.
	AdminSealing struct {
		Keys []AdminSealingKey `json:"keys"`
		// Unknown is the number of values that none of the keys sealed.
		Unknown int `json:"unknown"`
	}

	// AdminSealingKey is a sealing key.
	AdminSealingKey struct {
		// Key is the option with the key, or `key file` for the key of the embedded store.
		Key string `json:"key"`
		// ID is what the values that the key sealed begin with after `01`.
		ID string `json:"id"`
		// Values is the number of stored values that the key sealed.
		Values int `json:"values"`
	}
)
