package service

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestSilentUpstreamKeepsNoConnection(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ended := make(chan struct{})
	go func() { defer close(ended); listen(silent) }()

	conn, err := net.Dial("tcp", silent.Addr().String())
	require.NoError(t, err)
	defer conn.Close()
	_, err = io.WriteString(conn, "GET / HTTP/1.1\r\n\r\n")
	require.NoError(t, err)
	require.NoError(t, conn.(*net.TCPConn).CloseWrite())
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(20*time.Second)))
	said, err := io.ReadAll(conn)
	require.NoError(t, err, "a client that has closed is let go")
	assert.Empty(t, said)

	require.NoError(t, silent.Close())
	<-ended
}
