//go:build darwin || freebsd

package poller

// writeRaises: SO_NOSIGPIPE silences even a plain write(2).
const writeRaises = false

func backends() map[string]opener {
	return map[string]opener{"kqueue": openBackend}
}
