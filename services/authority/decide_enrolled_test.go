package authority_test

import (
	"watchword.dev/services/authority/authoritytest"
	"watchword.dev/services/internal/command"
)

// enrolments are decisions about enforcers and consumers.
var enrolments = []decision{
	{"operator enrolls", func(s *story) string {
		return s.do(s.me(), command.EnrollEnforcer{ID: s.NewID(), Name: "edge", Secret: s.NewSecret()})
	}, "enforcer.enrolled.v1"},
	{"operator's token enrolls", func(s *story) string {
		s.writer("w")
		return s.do(s.by("w"), command.EnrollEnforcer{ID: s.NewID(), Name: "edge", Secret: s.NewSecret()})
	}, "not_permitted"},
	{"stranger enrolls", func(s *story) string {
		return s.do(s.stranger(), command.EnrollEnforcer{ID: s.NewID(), Name: "edge", Secret: s.NewSecret()})
	}, "not_permitted"},
	{"retire", func(s *story) string {
		id := s.NewID()
		s.must(s.me(), command.EnrollEnforcer{ID: id, Name: "edge", Secret: s.NewSecret()})
		return s.do(s.me(), command.RetireEnforcer{ID: id})
	}, "enforcer.retired.v1"},
	{"retire twice", func(s *story) string {
		id := s.NewID()
		s.must(s.me(), command.EnrollEnforcer{ID: id, Name: "edge", Secret: s.NewSecret()})
		s.must(s.me(), command.RetireEnforcer{ID: id})
		return s.do(s.me(), command.RetireEnforcer{ID: id})
	}, "enforcer_not_found"},
	{"enroll with an nkey", func(s *story) string {
		return s.do(s.me(), command.EnrollEnforcer{ID: s.NewID(), Name: "edge", Secret: s.NewSecret(), Nkey: authoritytest.NewNkey()})
	}, "enforcer.enrolled.v1"},
	{"no nkey at all", func(s *story) string {
		return s.do(s.me(), command.EnrollEnforcer{ID: s.NewID(), Name: "edge", Secret: s.NewSecret(), Nkey: "UABC"})
	}, "invalid_field"},
	{"nkey of a retired consumer", func(s *story) string {
		id, nkey := s.NewID(), authoritytest.NewNkey()
		s.must(s.me(), command.EnrollConsumer{ID: id, Name: "siem", Nkey: nkey})
		s.must(s.me(), command.RetireConsumer{ID: id})
		return s.do(s.me(), command.EnrollEnforcer{ID: s.NewID(), Name: "edge", Secret: s.NewSecret(), Nkey: nkey})
	}, "conflict"},
	{"consumer", func(s *story) string {
		return s.do(s.me(), command.EnrollConsumer{ID: s.NewID(), Name: "siem", Region: "eu-1", Nkey: authoritytest.NewNkey()})
	}, "consumer.enrolled.v1"},
	{"consumer once more", func(s *story) string {
		c := command.EnrollConsumer{ID: s.NewID(), Name: "siem", Nkey: authoritytest.NewNkey()}
		s.must(s.me(), c)
		return s.do(s.me(), c)
	}, "unchanged"},
	{"consumer without an nkey", func(s *story) string {
		return s.do(s.me(), command.EnrollConsumer{ID: s.NewID(), Name: "siem"})
	}, "invalid_field"},
	{"consumer with an enforcer's nkey", func(s *story) string {
		nkey := authoritytest.NewNkey()
		s.must(s.me(), command.EnrollEnforcer{ID: s.NewID(), Name: "edge", Secret: s.NewSecret(), Nkey: nkey})
		return s.do(s.me(), command.EnrollConsumer{ID: s.NewID(), Name: "siem", Nkey: nkey})
	}, "conflict"},
	{"stranger enrolls a consumer", func(s *story) string {
		return s.do(s.stranger(), command.EnrollConsumer{ID: s.NewID(), Name: "siem", Nkey: authoritytest.NewNkey()})
	}, "not_permitted"},
	{"retire a consumer", func(s *story) string {
		id := s.NewID()
		s.must(s.me(), command.EnrollConsumer{ID: id, Name: "siem", Nkey: authoritytest.NewNkey()})
		return s.do(s.me(), command.RetireConsumer{ID: id})
	}, "consumer.retired.v1"},
	{"stranger retires a consumer", func(s *story) string {
		id := s.NewID()
		s.must(s.me(), command.EnrollConsumer{ID: id, Name: "siem", Nkey: authoritytest.NewNkey()})
		return s.do(s.stranger(), command.RetireConsumer{ID: id})
	}, "not_permitted"},
	{"retire an unknown consumer", func(s *story) string {
		return s.do(s.me(), command.RetireConsumer{ID: s.NewID()})
	}, "consumer_not_found"},
}
