package caddymodule

import (
	"errors"

	"github.com/caddyserver/caddy/v2"
)

// errPlaceholder does not say which placeholder it is about: in a secret that
// holds braces of its own, what looks like one is a part of the secret.
var errPlaceholder = errors.New("a placeholder is not known or has no value; " +
	"a file it names must exist, be readable and not be empty")

// errEmptySecret is a secret that was written as an empty text.
var errEmptySecret = errors.New("must not be empty")

// resolve replaces the placeholders of value. Every placeholder must be known
// and have a value.
func resolve(value string) (string, error) {
	resolved, err := caddy.NewReplacer().ReplaceOrErr(value, true, true)
	if err != nil {
		// The cause quotes what stands between the braces.
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
