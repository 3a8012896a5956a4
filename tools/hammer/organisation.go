package main

import (
	"bufio"
	"crypto/sha256"
	"fmt"
	"os"
	"slices"

	"watchword.dev/events/token"
)

// organisation is a population of accounts, users, zones and tokens that
// follows from their numbers alone: it is the model of what lists must show.
type organisation struct {
	accounts int
	// userIDs are those of the users in the order in which lists have them.
	userIDs []token.ID
}

// How many of everything there is for each account.
const (
	orgUsers  = 10  // all of them members, one as an administrator
	orgZones  = 100 // directly in it
	orgOwned  = 50  // tokens of its own
	orgTokens = 5   // of each user: as many again
)

func newOrganisation(accounts int) *organisation {
	o := &organisation{accounts: accounts}
	for i := range o.users() {
		o.userIDs = append(o.userIDs, o.user(i))
	}
	slices.SortFunc(o.userIDs, token.ID.Compare)
	return o
}

func (o *organisation) users() int  { return orgUsers * o.accounts }
func (o *organisation) zones() int  { return orgZones * o.accounts }
func (o *organisation) tokens() int { return (orgOwned + orgUsers*orgTokens) * o.accounts }

func (o *organisation) account(i int) token.ID { return idOf('A', i) }
func (o *organisation) user(i int) token.ID    { return idOf('U', i) }
func (o *organisation) zone(i int) token.ID    { return idOf('Z', i) }

// Tokens are owned by accounts first, then by users, each by turns: the nth
// token of the i-th owner.
func (o *organisation) ownedName(i, nth int) string {
	return fmt.Sprintf("deploy %02d of %06d", nth, i)
}
func (o *organisation) usersName(i, nth int) string { return fmt.Sprintf("cli %d of %07d", nth, i) }

// The names, in which the order of lists is that of the numbers. Of what hangs
// on an account there is one for each account before there is the next.
func (o *organisation) accountName(i int) string { return fmt.Sprintf("org %06d", i) }
func (o *organisation) email(i int) string       { return fmt.Sprintf("user%07d@example.com", i) }
func (o *organisation) zoneName(i int) string    { return fmt.Sprintf("zone%08d.example", i) }

// in returns the account in which the i-th user, zone or token lies.
func (o *organisation) in(i int) int { return i % o.accounts }

// writeDirectory writes what `watchword import directory` reads.
func (o *organisation) writeDirectory(name string) error {
	return writeFile(name, func(w *bufio.Writer) {
		fmt.Fprintln(w, "kind,id,email,name,account,roles,type")
		for i := range o.accounts {
			fmt.Fprintf(w, "account,%v,,%s,,,\n", o.account(i), o.accountName(i))
		}
		for i := range o.users() {
			role := "Administrator Read Only"
			if i < o.accounts {
				role = "Super Administrator"
			}
			fmt.Fprintf(w, "user,%v,%s,User %d,,,\n", o.user(i), o.email(i), i)
			fmt.Fprintf(w, "member,,%s,,%v,%s,\n", o.email(i), o.account(o.in(i)), role)
		}
		for i := range o.zones() {
			fmt.Fprintf(w, "resource,%v,,%s,%v,,com.cloudflare.api.account.zone\n", o.zone(i), o.zoneName(i), o.account(o.in(i)))
		}
	})
}

// writeTokens writes what `watchword import tokens` reads: secrets are known by
// their digests alone.
func (o *organisation) writeTokens(name string) error {
	return writeFile(name, func(w *bufio.Writer) {
		n := 0
		token := func(owner, name, group string, zone int) {
			sum := sha256.Sum256(fmt.Appendf(nil, "secret %d of another system", n))
			fmt.Fprintf(w, `{"owner":%q,"name":%q,"secret":"sha256:%x","permissions":[%q],"resources":["%s%v"]}`+"\n", owner, name, sum, group, zoneKey, o.zone(zone))
			n++
		}
		for nth := range orgOwned {
			for i := range o.accounts {
				token(o.account(i).String(), o.ownedName(i, nth), groupDNSWrite, i+nth*o.accounts)
			}
		}
		for nth := range orgTokens {
			for i := range o.users() {
				token(o.email(i), o.usersName(i, nth), groupZoneRead, o.in(i)+nth*o.accounts)
			}
		}
	})
}

func writeFile(name string, write func(*bufio.Writer)) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(f, 1<<20)
	write(w)
	if err := w.Flush(); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
