package servers

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

// Redis is a redis-server on 127.0.0.1 that keeps nothing on disk.
type Redis struct {
	Addr     string
	TLSAddr  string // of StartRedisTLS
	dir      string
	args     []string
	guard    *exec.Cmd
	lifeline io.Closer
}

// HasRedis reports whether there is a redis-server to start.
func HasRedis() bool { return find("redis-server") != "" }

// StartRedis starts a server, which stops at the end of the test. Without the program
// the test is skipped: see Missing.
func StartRedis(t testing.TB, args ...string) *Redis {
	t.Helper()
	if !HasRedis() {
		Missing(t, "redis-server")
	}
	r, err := LaunchRedis(args...)
	require.NoError(t, err)
	t.Cleanup(r.Close)
	return r
}

// StartRedisTLS starts a server that also listens at TLSAddr, and returns how to reach it
// there.
func StartRedisTLS(t testing.TB) (*Redis, *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	dir := t.TempDir()
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
		return path
	}
	certFile := write("cert.pem", "CERTIFICATE", cert)
	port, err := freePort()
	require.NoError(t, err)
	r := StartRedis(t, "--tls-port", strconv.Itoa(port), "--tls-auth-clients", "no",
		"--tls-cert-file", certFile, "--tls-ca-cert-file", certFile, "--tls-key-file", write("key.pem", "PRIVATE KEY", private))
	r.TLSAddr = "127.0.0.1:" + strconv.Itoa(port)
	parsed, err := x509.ParseCertificate(cert)
	require.NoError(t, err)
	roots := x509.NewCertPool()
	roots.AddCert(parsed)
	return r, &tls.Config{RootCAs: roots, ServerName: "127.0.0.1"}
}

// LaunchRedis is StartRedis for a program: it stops with it, or at Close.
func LaunchRedis(args ...string) (*Redis, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "admit-redis-")
	if err != nil {
		return nil, err
	}
	r := &Redis{Addr: "127.0.0.1:" + strconv.Itoa(port), dir: dir}
	r.args = append([]string{
		"--port", strconv.Itoa(port), "--bind", "127.0.0.1", "--dir", dir, "--pidfile", filepath.Join(dir, "pid"),
		"--save", "", "--appendonly", "no", "--logfile", filepath.Join(dir, "log"),
	}, args...)
	if err := r.Start(); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// Start starts a server that was stopped. It is empty.
func (r *Redis) Start() error {
	cmd := guarded("KILL", r.dir, find("redis-server"), r.args...)
	var err error
	if r.lifeline, err = cmd.StdinPipe(); err != nil {
		return err
	}
	if err := os.MkdirAll(r.dir, 0o700); err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	r.guard = cmd
	client := redis.NewClient(&redis.Options{Addr: r.Addr})
	defer client.Close()
	if err := await(func(ctx context.Context) error { return client.Ping(ctx).Err() }); err != nil {
		log, _ := os.ReadFile(filepath.Join(r.dir, "log"))
		return fmt.Errorf("redis-server does not answer: %w\n%s", err, log)
	}
	return nil
}

// Stop kills the server: clients are cut off, and what it knew is lost.
func (r *Redis) Stop() {
	if r.guard != nil {
		_ = r.lifeline.Close()
		_ = r.guard.Wait()
		r.guard = nil
	}
}

// Close stops the server for good.
func (r *Redis) Close() {
	r.Stop()
	_ = os.RemoveAll(r.dir)
}

// Hang makes the server answer nobody, with all connections as they are, until Resume.
func (r *Redis) Hang() error { return r.signal("-STOP") }

// Resume ends Hang.
func (r *Redis) Resume() error { return r.signal("-CONT") }

func (r *Redis) signal(name string) error {
	pid, err := os.ReadFile(filepath.Join(r.dir, "pid"))
	if err != nil {
		return err
	}
	return exec.Command("kill", name, strings.TrimSpace(string(pid))).Run()
}

// StartRedisCluster starts masters that share the slots evenly, and returns their
// addresses.
func StartRedisCluster(t testing.TB, masters int) []string {
	t.Helper()
	const slots = 16384
	var addrs, buses []string
	for range masters {
		bus, err := freePort()
		require.NoError(t, err)
		r := StartRedis(t, "--cluster-enabled", "yes", "--cluster-port", strconv.Itoa(bus), "--cluster-node-timeout", "2000")
		addrs, buses = append(addrs, r.Addr), append(buses, strconv.Itoa(bus))
	}
	for i, addr := range addrs {
		client := redis.NewClient(&redis.Options{Addr: addr})
		t.Cleanup(func() { _ = client.Close() })
		require.NoError(t, client.ClusterAddSlotsRange(t.Context(), slots*i/masters, slots*(i+1)/masters-1).Err())
		for j := range i {
			_, port, _ := strings.Cut(addrs[j], ":")
			require.NoError(t, client.Do(t.Context(), "CLUSTER", "MEET", "127.0.0.1", port, buses[j]).Err())
		}
	}
	for _, addr := range addrs {
		client := redis.NewClient(&redis.Options{Addr: addr})
		require.NoError(t, await(func(ctx context.Context) error {
			info, err := client.ClusterInfo(ctx).Result()
			if err == nil && !(strings.Contains(info, "cluster_state:ok") && strings.Contains(info, fmt.Sprint("cluster_size:", masters))) {
				err = errors.New(info)
			}
			return err
		}))
		_ = client.Close()
	}
	return addrs
}

// await tries for up to 30 s.
func await(try func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for {
		err := try(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(20 * time.Millisecond):
		}
	}
}
