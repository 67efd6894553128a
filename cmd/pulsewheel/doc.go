// Command pulsewheel runs the WebSocket connection server.
//
//	pulsewheel serve          runs the server until SIGTERM or SIGINT
//	pulsewheel check-config   prints the configuration that serve would run with, or all that is wrong with it
//	pulsewheel doctor         tells what stands between this host, or a proxy in front, and the connections wanted
//	pulsewheel drain          has a running server send its connections away and take no new ones; undrain takes it back
//	pulsewheel version        prints version, commit and Go version
//
// Every option is a flag (--heartbeat-interval), an environment variable (PULSEWHEEL_HEARTBEAT_INTERVAL) and a key of the YAML
// file that --config names (heartbeat-interval). Flags win over the environment, the environment over the file, the file over
// the defaults.
//
// The package holds no logic of the server: it turns options into a server.Config and a monitor.Config, signals into calls and
// errors into exit codes. run takes everything that a process has from outside (arguments, environment, streams, signals), so
// that the tests call it like any function.
//
// # Exit codes
//
// 0 after a clean shutdown; 1 for a fault while starting or running, and for a second signal, which ends at once; 2 for a
// configuration that can't be used, with every problem on a line of its own. doctor: 0 when all is well, 1 when something is short.
//
// # Concurrency
//
// serve has a goroutine for the server, one for each job of the monitor and one for Shutdown; it decides everything itself,
// in one select.
//
// # Limits
//
// The configuration file may have 1 MiB. Sizes and counts end at 2^31-1, since kernel interfaces take them as C ints.
//
// # Portability
//
// Where server and monitor build: Linux, and darwin and freebsd without the overload alarm.
package main
