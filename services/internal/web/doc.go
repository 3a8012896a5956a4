// Package web is what every HTTP role of Watchword shares: the routes, the
// bounded and strict reading of a request, who sent it, and the two writers of
// answers, one for success and one for errors.
//
// A handler is a Handler: it reads an Exchange, answers through it once, or
// returns an error. Every error of every route leaves through one function,
// which turns a *fault.Error into the JSON envelope that the clients of
// Cloudflare's API expect and anything else into an internal fault whose cause
// is only logged.
package web
