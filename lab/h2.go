package lab

import (
	"context"
	"crypto/tls"
	"net/http"

	"golang.org/x/net/http2"
)

// serveH2 serves one HTTP/2 connection.
func serveH2(ctx context.Context, c *tls.Conn, h http.Handler) {
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	(&http2.Server{}).ServeConn(c, &http2.ServeConnOpts{Context: ctx, Handler: h, BaseConfig: &http.Server{Handler: h, ErrorLog: quiet}})
	c.Close()
}
