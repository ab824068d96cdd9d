package caddymodule

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ownership"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/embedded"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/redis"
)

const (
	// roomOnRedis is how much of maxmemory should be free: what strangers can fill with
	// simulated state, and something for registrations.
	roomOnRedis = 64 << 20
	// roomOnDisk is how much of the disk should be free for the embedded store.
	roomOnDisk = 64 << 20
)

// checkStore checks the store of a configuration.
func checkStore(ctx context.Context, store Store, f *findings) {
	ctx, cancel := context.WithTimeout(ctx, 3*checkTimeout)
	defer cancel()
	switch s := store.(type) {
	case *EmbeddedStore:
		checkFile(s.path, f)
	case *RedisStore:
		s.check(ctx, f)
	default:
		f.note("store", fmt.Sprintf("%T", store), "this kind of store is not checked")
	}
}

// checkFile checks the file of the embedded store, its key and its disk.
func checkFile(path string, f *findings) {
	_, err := embedded.Check(path)
	switch {
	case err == nil:
	case errors.Is(err, fs.ErrNotExist):
		if err := writableFolder(path); err != nil {
			f.add("store", path, "the file cannot be created (%v): give the user of the gateway the right to write there, or correct `store.path`", err)
		}
	case errors.Is(err, embedded.ErrLocked):
		f.note("store", path, "another process, probably the gateway, has the file open, so it was not read: "+
			"`caddy dsapp health` says whether it works there")
	default:
		f.add("store", path, "%v", err)
	}
	if _, _, err := embedded.LoadKey(path); err != nil {
		f.add("store", embedded.KeyPath(path), "%v", err)
	}
	folder := existingFolder(path)
	if free, known := freeSpace(folder); known && free < roomOnDisk {
		f.add("disk", folder, "only %d MiB are free, and registrations are refused when it is full: free some space, at least %d MiB", free>>20, roomOnDisk>>20)
	}
}

// existingFolder returns the first folder above a file that exists.
func existingFolder(path string) string {
	folder := filepath.Dir(path)
	for {
		if _, err := os.Stat(folder); err == nil || folder == filepath.Dir(folder) {
			return folder
		}
		folder = filepath.Dir(folder)
	}
}

// writableFolder returns an error if no file or folder can be created where path is to be.
func writableFolder(path string) error {
	probe, err := os.CreateTemp(existingFolder(path), ".dsapp-check-*")
	if err != nil {
		return err
	}
	return errors.Join(probe.Close(), os.Remove(probe.Name()))
}

// check checks the servers: what they tell about themselves, and every command that the
// gateway needs.
func (s *RedisStore) check(ctx context.Context, f *findings) {
	subject := strings.Join(s.Addresses, ",")
	// A delayed call would not tell what fails.
	client, err := s.open(0)
	if err != nil {
		f.add("redis", subject, "%v", err)
		return
	}
	defer func() { _ = client.Close() }()
	if what, err := rehearse(ctx, client); err != nil {
		f.add("redis", subject, "%s fails (%v): %s", what, err, redisAdvice(err))
	}
	servers, err := client.Info(ctx)
	if err != nil {
		return // the same failure as above
	}
	for _, server := range servers {
		s.checkInfo(server, f)
	}
}

// checkInfo checks what a server tells about itself.
func (s *RedisStore) checkInfo(server redis.ServerInfo, f *findings) {
	found := func(format string, args ...any) { f.add("redis", server.Address, format, args...) }
	if server.Denied {
		f.note("redis", server.Address, "the user may not run the command info, so version, eviction policy, room and replicas were not checked: "+
			"permit +info, or check them with redis-cli")
		return
	}
	least := 6
	if s.Cluster {
		least = 7
	}
	major, _, _ := strings.Cut(server.Version, ".")
	if n, err := strconv.Atoi(major); err == nil && n < least {
		found("the version is %s: install version %d or later", server.Version, least)
	}
	if server.Role != "master" {
		found("this is a replica: name the master, or the Sentinels with `master_name`")
	}
	if server.Policy != "noeviction" {
		found("maxmemory-policy is %s, with which pending activations can vanish: set it to noeviction", server.Policy)
	}
	if free := server.MaxMemory - server.UsedMemory; server.MaxMemory > 0 && free < roomOnRedis {
		found("%d MiB of maxmemory are free, and registrations are refused when it is full: raise maxmemory so that %d MiB are free",
			max(0, free)>>20, roomOnRedis>>20)
	}
	if server.Replicas < s.WaitReplicas {
		found("%d replicas are connected and `wait_replicas` is %d, so registrations fail: connect more replicas or lower it", server.Replicas, s.WaitReplicas)
	}
}

// redisAdvice returns what to do about a failure of a server.
func redisAdvice(err error) string {
	for _, a := range []struct{ text, advice string }{
		{"WRONGPASS", "correct `username` and `password`"},
		{"NOAUTH", "configure `password`, and `username` if the server has users"},
		{"NOPERM", "permit the commands that docs/operation.md lists for the keys with the prefix"},
		{"permit all", "permit the commands that docs/operation.md lists for the keys with the prefix"},
		{"READONLY", "name the master, or the Sentinels with `master_name`"},
		{"OOM", "raise maxmemory, or remove what fills the server"},
		{"MISCONF", "the server cannot save to its disk: free space there or correct its configuration"},
		{"not configured as one", "set `cluster` to true"},
		{"too few replicas", "connect as many replicas as `wait_replicas` says, or lower it"},
		{"no Sentinel knows", "correct `master_name`"},
		{"unknown authority", "put the authority of the server's certificate into `store.tls.ca`"},
		{"no TLS handshake", "check that the port is one with TLS, or remove `store.tls`"},
		{"refused", "start the server, or correct `addresses`"},
		{"no such host", "correct `addresses`, or add the name to DNS or /etc/hosts"},
	} {
		if strings.Contains(err.Error(), a.text) {
			return a.advice
		}
	}
	return "check `addresses`, the network and the log of the server"
}

// rehearse makes every call that the gateway makes, about a registration and a request of
// random names, which it removes again. It returns what the first call that fails was for.
func rehearse(ctx context.Context, s OpenStore) (what string, err error) {
	const lifetime = 10 * time.Second
	random := func(n int) []byte {
		b := make([]byte, n)
		_, _ = rand.Read(b)
		return b
	}
	id, g, token := "check-"+rand.Text(), activation.Generation(random(16)), activation.Token(random(16))
	claim := ownership.Claim{Key: rand.Text(), Token: ownership.Token(random(16)), Owner: random(64)}
	serialNumber := rand.Text()
	for _, step := range []struct {
		what string
		call func() error
	}{
		{"the first command, to reserve room,", func() error {
			release, err := s.Reserve(ctx)
			if err == nil {
				release()
			}
			return err
		}},
		{"storing a registration", func() error {
			_, _, err := s.Create(ctx, activation.Record{
				Identifier: id, Generation: g, Kind: activation.KindMDL, Facts: random(64), Verifier: random(64), Data: random(64), Lifetime: lifetime,
			}, activation.Generation{})
			return err
		}},
		{"reading a registration", func() error { _, _, err := s.Load(ctx, id); return err }},
		{"storing a handshake", func() error {
			_, err := s.PutHandshake(ctx, id, activation.Handshake{Generation: g, State: random(64), Lifetime: lifetime})
			return err
		}},
		{"taking a handshake", func() error { _, _, err := s.Take(ctx, id, token, activation.Tag{}, 1); return err }},
		{"settling an attempt", func() error {
			_, _, err := s.Settle(ctx, id, activation.Settlement{Generation: g, Token: token, Proven: true, MaxAttempts: 1, MaxActivations: 1})
			return err
		}},
		{"admitting a device", func() error { _, _, err := s.AdmitDevice(ctx, id, 1); return err }},
		{"returning a device", func() error { return s.ReturnDevice(ctx, id, g) }},
		{"admitting a final call", func() error { _, _, err := s.AdmitConfirmation(ctx, id, 1, activation.KindMDL); return err }},
		{"burning a registration", func() error { _, _, err := s.Burn(ctx, id, 1); return err }},
		{"removing a registration", func() error { return s.Remove(ctx, id, g) }},
		{"reading the simulation secret", func() error { _, err := s.ReplaceSimulationSecret(ctx, random(16), random(16)); return err }},
		{"storing the owner of a request", func() error { _, err := s.Claim(ctx, ownership.Login, claim, serialNumber, lifetime); return err }},
		{"reading the owner of a request", func() error { _, _, err := s.Owner(ctx, ownership.Login, claim.Key); return err }},
		{"listing the requests of a device", func() error { _, err := s.Pending(ctx, ownership.Login, serialNumber); return err }},
		{"removing the owner of a request", func() error { return s.Release(ctx, ownership.Login, claim.Key, claim.Token, serialNumber) }},
	} {
		if err := step.call(); err != nil {
			return step.what, err
		}
	}
	return "", nil
}
