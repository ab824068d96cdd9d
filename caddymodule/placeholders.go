package caddymodule

import (
	"errors"

	"github.com/caddyserver/caddy/v2"
)

// errPlaceholder does not quote the placeholder. If a secret contains braces, what looks
// like a placeholder is part of the secret.
var errPlaceholder = errors.New("a placeholder is not known or has no value; " +
	"a file it names must exist, be readable and not be empty")

// errEmptySecret is the error for an option that is set to an empty text.
var errEmptySecret = errors.New("must not be empty")

// resolve replaces the placeholders in value. It fails if one is unknown or empty.
func resolve(value string) (string, error) {
	resolved, err := caddy.NewReplacer().ReplaceOrErr(value, true, true)
	if err != nil {
		// The original error quotes the text between the braces.
		return "", errPlaceholder
	}
	return resolved, nil
}

// resolveSecret is resolve for a value that must not be empty.
func resolveSecret(value string) (string, error) {
	resolved, err := resolve(value)
	if err == nil && resolved == "" {
		return "", errEmptySecret
	}
	return resolved, err
}
