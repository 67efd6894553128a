// Package peers is the root of a module of its own: the WebSocket servers that users would pick instead of Pulsewheel,
// one small main package each, and the program that compares them. The module keeps their libraries out of the product's
// go.mod. README.md says what each is and how to run the comparison.
package peers
