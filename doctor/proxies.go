package doctor

import "time"

// Limit is a time after which something between client and server is known to cut a connection.
type Limit struct {
	After       time.Duration
	Whose       string
	FromOpening bool // it counts from the opening; otherwise from the last byte
}

// KnownLimits are the defaults that their owners document, the shortest first.
func KnownLimits() []Limit {
	return []Limit{
		{30 * time.Second, "Google Cloud HTTP(S) load balancers (backend service timeout)", true},
		{60 * time.Second, "nginx (proxy_read_timeout), AWS ALB and CLB", false},
		{65 * time.Second, "OCI load balancers", false},
		{100 * time.Second, "Cloudflare", false},
		{4 * time.Minute, "Azure load balancers", false},
		{5 * time.Minute, "Envoy (stream_idle_timeout), OCI backends", false},
		{350 * time.Second, "AWS NLB, connection tracking of AWS Nitro v6", false},
		{10 * time.Minute, "AWS API Gateway", false},
		{time.Hour, "Envoy (idle_timeout of its connection manager)", false},
		{2 * time.Hour, "AWS API Gateway", true},
	}
}
