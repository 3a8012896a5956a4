// Package routes says, for the requests of a service behind a proxy, which
// permission each needs and on which resource. It is a file:
//
//	routes:
//	  - methods: [GET]
//	    path: /accounts/{account}/zones/{zone}/records/{record}
//	    permission: dns.records.read
//	    resource:
//	      - com.cloudflare.api.account.{account}
//	      - com.cloudflare.api.account.zone.{zone}
//	  - hosts: [dns.example.com]
//	    methods: ["*"]
//	    path: /accounts/{account}/zones/{zone}/**
//	    permission: dns.records.write
//	    resource:
//	      - com.cloudflare.api.account.{account}
//	      - com.cloudflare.api.account.zone.{zone}
//
// The first route that fits decides. Nothing fits: the request is refused. A
// route that no request can reach, because one before it takes all of them, is
// a mistake in the file.
//
// A path is compared segment by segment, as the client wrote it, decoded: a
// word stands for itself, {name} for one segment, ** at the end for whatever
// follows, if only a slash. A segment that goes into the key of a resource must
// be an id, else the request is refused, whatever comes later in the file. "GET"
// is HEAD as well. Hosts are compared without their port; no hosts are all.
//
// What two programs could understand in two ways fits nothing: see Split.
package routes
