// Package authoritytest helps to test programs that have a pen: a directory in
// memory that lags as told, an installation with people in it, and the test of
// two pens that fight over one ledger, which runs against any events.Log.
package authoritytest
