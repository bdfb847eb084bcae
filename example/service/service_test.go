package service

import (
	"io"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

func TestSilentUpstreamKeepsNoConnection(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // which ends when all goroutines have
		conn := silent()
		_, err := io.WriteString(conn, "GET / HTTP/1.1\r\n\r\n")
		require.NoError(t, err, "it listens")
		require.NoError(t, conn.Close())
	})
}
