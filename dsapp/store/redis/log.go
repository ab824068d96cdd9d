package redis

import (
	"context"
	"fmt"

	goredis "github.com/redis/go-redis/v9"
)

// SetLog gives what the clients of the whole process have to say, such as
// failures to connect, to log instead of printing it to standard error. Every
// failure that matters is an error of a store's method as well. It is called
// once, before the first client is made.
func SetLog(log func(ctx context.Context, message string)) { goredis.SetLogger(clientLog(log)) }

// clientLog is a logger for go-redis.
type clientLog func(ctx context.Context, message string)

// Printf implements the logger of go-redis.
func (l clientLog) Printf(ctx context.Context, format string, v ...any) {
	l(ctx, fmt.Sprintf(format, v...))
}
