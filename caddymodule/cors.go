package caddymodule

// CORS says which web pages may call the gateway from the browsers and web views in which they
// run (Cross-Origin Resource Sharing). Applications that make their calls outside a web view
// need none of it.
//
// It is no access control: a page needs an API key as every caller does, the key in a page is
// public, and whoever has it can call from outside a browser.
type CORS struct {
	// The origins of the pages, exactly as browsers send them: `https://app.example.com`,
	// `https://app.example.com:8443`, `capacitor://localhost`. An origin is a scheme and a
	// host, both in lower case, and a port if it is not the default one; a path or a slash
	// at the end is refused. So are `*` and `null`.
	//
	// Pages of these origins can use the services for front-end keys. No page can use those
	// for back-end keys only, such as the registration of users. An origin such as
	// `capacitor://localhost` is that of all applications that are made with the same
	// framework. With `http://`, whoever controls the network of a user can act as the page.
	// Default: none; then browsers let only pages of the gateway's own origin call it.
	Origins []string `json:"origins,omitempty"`
}
