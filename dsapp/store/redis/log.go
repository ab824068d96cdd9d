package redis

import (
	"context"
	"fmt"

	goredis "github.com/redis/go-redis/v9"
)

// SetLog sets the function that gets the log messages of go-redis, such as failures to
// connect, for the whole process. By default they go to standard error. Every failure that
// matters is also an error of a method of Store. SetLog must be called before the first
// client is made.
func SetLog(log func(ctx context.Context, message string)) { goredis.SetLogger(clientLog(log)) }

// clientLog implements the logger interface of go-redis.
type clientLog func(ctx context.Context, message string)

// Printf formats a message and logs it.
func (l clientLog) Printf(ctx context.Context, format string, v ...any) {
	l(ctx, fmt.Sprintf(format, v...))
}
