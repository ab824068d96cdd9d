package sandboxcmd

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/sandbox"
)

// deviceFile returns the default file for the authenticator of a phone.
func deviceFile(dir string) string { return filepath.Join(dir, "phone.json") }

// readDevice reads the authenticator of an activated phone.
func readDevice(file string) (*sandbox.Authenticator, error) {
	content, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, misused("%s does not exist: activate the phone first, with `dsapp phone activate`", file)
	}
	if err != nil {
		return nil, usageError{err}
	}
	a := new(sandbox.Authenticator)
	if err := json.Unmarshal(content, a); err != nil || a.SerialNumber == "" || len(a.Secret) == 0 {
		return nil, misused("%s is not the file of an activated phone", file)
	}
	return a, nil
}

// writePrivate replaces a file at once with a value in JSON. Only the user can read the file.
func writePrivate(file string, value any) error {
	content, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(file), filepath.Base(file)+".*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(append(content, '\n'))
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}
