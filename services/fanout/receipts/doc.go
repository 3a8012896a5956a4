// Package receipts says who has heard of a revocation. It collects the receipts of
// enforcing services, which say how far each of their processes has applied the
// ledger, takes in those of services that speak HTTP only, and answers how a
// revocation stands.
//
// The nodes of the installation verify too, so they send receipts like every
// enforcer, under the installation's id and the key of the pulses: "everybody
// has heard" speaks of those who ask over HTTP as well.
package receipts
