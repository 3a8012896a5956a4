// Package usage is the projection of the usage reports: when each credential
// was used first and last, and how often for what on each day.
//
// It is fed by the stream of reports and not by the ledger, so it differs from
// the other projections: the stream forgets what is older than 90 days, nothing
// chains one report to the next, and a report that cannot be taken is left out and
// counted, because no answer about who may do what rests on it. What it holds can
// be thrown away and built anew as far as the stream goes back.
//
// # Rows
//
//	c <credential>                   kind, first and last good use
//	d <day> <credential> <use>       how often that day, and when last
//	n <day> <credential>             how many different uses that day has
//	l <day>                          uses that reporters had no room for
//	i <reporter>.<instance>          the number of its last report, and its day
//
// All numbers are big-endian. Days are counted from 1970 in UTC, and come from the
// reports as far as these are plausible: a report is from the past, and not from
// before the stream's own memory. The rows of days that have left it are removed.
package usage
