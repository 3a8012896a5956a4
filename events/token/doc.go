// Package token holds the values that a token is made of, and decides what a
// token may do.
//
// A token has an ID, a Secret of which only the Digest is stored, and a Grant:
// policies, a condition on the client's address, and a validity. A Grant is
// checked once by Validate, when somebody asks for it; compared once by Covers
// with what that somebody holds; compiled once by Compile, when the event that
// carries it is applied; and evaluated at every use by Compiled.Evaluate,
// which allocates nothing and asks nobody.
//
// The package is pure: no clock, no network, no storage. Its only randomness
// is in Format.Generate and Generator.
package token
