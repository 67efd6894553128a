package server

import "crypto/tls"

// insecure takes the certificate of net/http/httptest as it is.
func insecure() *tls.Config { return &tls.Config{InsecureSkipVerify: true} }
