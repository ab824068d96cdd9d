package solve

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
)

// ReadFile reads a capture from a file. It refuses a file that others than its owner can read or
// write.
func ReadFile(name string) (Capture, error) {
	f, err := os.Open(name)
	if err != nil {
		return Capture{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return Capture{}, err
	}
	if !info.Mode().IsRegular() {
		return Capture{}, fmt.Errorf("%s is not a file", name)
	}
	// The modes of files say nothing on Windows.
	if info.Mode().Perm()&0o077 != 0 && runtime.GOOS != "windows" {
		return Capture{}, fmt.Errorf("%s can be used by others, and it holds a password: `chmod 600` it", name)
	}
	encoded, err := io.ReadAll(io.LimitReader(f, MaxCaptureSize+1))
	if err != nil {
		return Capture{}, err
	}
	c, err := ParseCapture(encoded)
	if err != nil {
		return Capture{}, fmt.Errorf("%s: %w", name, err)
	}
	return c, nil
}

// WriteFile writes a capture to a new file that only its owner can read. It never replaces a file.
func WriteFile(name string, c Capture) error {
	encoded, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(encoded, '\n'))
	return errors.Join(err, f.Close())
}
