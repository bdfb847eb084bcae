package service

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestOrderBookForgets(t *testing.T) {
	t.Parallel()
	var b orderBook
	assert.True(t, b.add("first"))
	assert.False(t, b.add("first"))
	for i := range maxOrders {
		assert.True(t, b.add(time.Duration(i).String()))
	}
	assert.True(t, b.add("first"), "the oldest is forgotten")
	assert.Len(t, b.known, maxOrders)
}
