package fault

import (
	"fmt"
	"time"
)

// The codes. What each means, its number, status and text stand in catalogue
// below, and as a table in this package's README.
const (
	// Who calls.
	MissingCredentials     Code = "missing_credentials"
	MalformedAuthorization Code = "malformed_authorization"
	MalformedAPIKey        Code = "malformed_api_key"
	MalformedAuthEmail     Code = "malformed_auth_email"
	ServiceKeyRefused      Code = "service_key_refused"
	InvalidAPIKey          Code = "invalid_api_key"
	InvalidAPIToken        Code = "invalid_api_token"
	InvalidAccessToken     Code = "invalid_access_token"
	InactiveAccessToken    Code = "inactive_access_token"
	AddressRefused         Code = "address_refused"
	APIKeysEnded           Code = "api_keys_ended"
	EnforcerKeyNeeded      Code = "enforcer_key_needed"

	// What the caller may do.
	NotPermitted        Code = "not_permitted"
	PermissionMissing   Code = "permission_missing"
	ListNotPermitted    Code = "list_not_permitted"
	AccountTokenRefused Code = "account_token_refused"
	NoAccountList       Code = "no_account_list"
	TokensNotSupported  Code = "tokens_not_supported"

	// Where the request went.
	UnknownRoute     Code = "unknown_route"
	InvalidID        Code = "invalid_id"
	MethodNotAllowed Code = "method_not_allowed"
	TokenNotFound    Code = "token_not_found"
	AccountNotFound  Code = "account_not_found"
	UserNotFound     Code = "user_not_found"
	EnforcerNotFound Code = "enforcer_not_found"
	ConsumerNotFound Code = "consumer_not_found"
	MemberNotFound   Code = "member_not_found"
	ResourceNotFound Code = "resource_not_found"
	ObjectNotFound   Code = "object_not_found"

	// What the request holds.
	InvalidJSON            Code = "invalid_json"
	MissingBody            Code = "missing_body"
	DuplicateKey           Code = "duplicate_key"
	TooDeep                Code = "too_deep"
	BodyTooLarge           Code = "body_too_large"
	UnsupportedContentType Code = "unsupported_content_type"
	InvalidField           Code = "invalid_field"
	InvalidParameter       Code = "invalid_parameter"
	InvalidHeader          Code = "invalid_header"
	InvalidText            Code = "invalid_text"
	InvalidName            Code = "invalid_name"
	InvalidPolicies        Code = "invalid_policies"
	InvalidEffect          Code = "invalid_effect"
	InvalidResources       Code = "invalid_resources"
	InvalidCondition       Code = "invalid_condition"
	ConditionMismatch      Code = "condition_mismatch"
	InvalidCIDR            Code = "invalid_cidr"
	InvalidTimes           Code = "invalid_times"
	InvalidStatus          Code = "invalid_status"
	InvalidGrace           Code = "invalid_grace"
	InvalidReason          Code = "invalid_reason"
	InvalidRoles           Code = "invalid_roles"
	InvalidResourceType    Code = "invalid_resource_type"
	InvalidParent          Code = "invalid_parent"
	UnknownPermissionGroup Code = "unknown_permission_group"
	GroupScopeMismatch     Code = "group_scope_mismatch"
	GroupNotHeld           Code = "group_not_held"
	RoleNotHeld            Code = "role_not_held"
	GroupNotForUserTokens  Code = "group_not_for_user_tokens"
	InvalidVerifyRequest   Code = "invalid_verify_request"
	BatchTooLarge          Code = "batch_too_large"
	InvalidCatalogue       Code = "invalid_catalogue"
	ReceiptRefused         Code = "receipt_refused"

	// What the state of things forbids.
	TokenRevoked      Code = "token_revoked"
	AlreadyRevoked    Code = "already_revoked"
	TokenDisabled     Code = "token_disabled"
	TokenExpired      Code = "token_expired"
	GraceRunning      Code = "grace_running"
	ExpiryRequired    Code = "expiry_required"
	LifetimeTooLong   Code = "lifetime_too_long"
	AddressRequired   Code = "address_required"
	QuotaReached      Code = "quota_reached"
	Conflict          Code = "conflict"
	RepeatMismatch    Code = "repeat_mismatch"
	UpkeepRunning     Code = "upkeep_running"
	NotEmpty          Code = "not_empty"
	LastAdministrator Code = "last_administrator"
	CatalogueInUse    Code = "catalogue_in_use"
	FeedRewound       Code = "feed_rewound"
	FeedReplaced      Code = "feed_replaced"

	// What the service cannot do now.
	RateLimited    Code = "rate_limited"
	NoPen          Code = "no_pen"
	OutcomeUnknown Code = "outcome_unknown"
	LedgerRefused  Code = "ledger_refused"
	StaleIndex     Code = "stale_index"
	NotReady       Code = "not_ready"
	WaitTimedOut   Code = "wait_timed_out"
	Overloaded     Code = "overloaded"
	Unavailable    Code = "unavailable"
	Internal       Code = "internal"
)

// The general texts that carry a chain, and the one that IAM gives for more
// than one reason.
const (
	textHeaders = "Invalid request headers"
	textRoute   = "Could not route to the requested path, perhaps your object identifier is invalid?"
	textCommon  = "Failed common permission check against resources."
	textBody    = "Request body is invalid."
)

// catalogue is the order of the documentation, too.
var catalogue = concat(callers, permissions, routes, contents, states, outages)

var callers = []Entry{
	{Code: MissingCredentials, Number: 9106, Status: 400,
		Text: "Missing X-Auth-Key, X-Auth-Email or Authorization headers",
		When: "The request carries no credential."},
	{Code: MalformedAuthorization, Number: 6003, Status: 400, Text: textHeaders,
		Chain: []Link{{6111, "Invalid format for Authorization header"}},
		When:  "Authorization is not «Bearer » and a well-formed secret."},
	{Code: MalformedAPIKey, Number: 6003, Status: 400, Text: textHeaders,
		Chain: []Link{{6103, "Invalid format for X-Auth-Key header"}},
		When:  "X-Auth-Key is no well-formed Global API Key, for example a token."},
	{Code: MalformedAuthEmail, Number: 6003, Status: 400, Text: textHeaders,
		Chain: []Link{{6102, "Invalid format for X-Auth-Email header"}},
		When:  "X-Auth-Email is missing beside X-Auth-Key, or no e-mail address."},
	{Code: ServiceKeyRefused, Number: 20024, Status: 403, Text: "X-Auth-User-Service-Key is not accepted: use an API token",
		When: "An Origin CA key is presented, and no well-formed token or Global API Key beside it. There are no such keys here."},
	{Code: InvalidAPIKey, Number: 9103, Status: 403, Text: "Unknown X-Auth-Key or X-Auth-Email",
		When: "The pair of key and e-mail belongs to nobody."},
	{Code: InvalidAPIToken, Number: 1000, Status: 401, Text: "Invalid API Token",
		When: "Token verification with a secret that is unknown, rolled, revoked or of the other kind (user or account)."},
	{Code: InvalidAccessToken, Number: 9109, Status: 403, Text: "Invalid access token",
		When: "Any other endpoint with such a secret."},
	{Code: InactiveAccessToken, Number: 9109, Status: 403, Text: "The access token is not active",
		When: "The token is known, and disabled, expired or not valid yet."},
	{Code: AddressRefused, Number: 9109, Status: 403, Text: "Cannot use the access token from location",
		When: "The token's condition does not hold the caller's address; the detail is that address."},
	{Code: APIKeysEnded, Number: 20044, Status: 403, Text: "API keys are no longer accepted here: use an API token",
		When: "A good Global API Key after the day on which keys end (keys_end of the account's token policy), in that account; and everywhere, also to get another key, once keys have ended in all accounts of its user. Operators' keys manage on."},
	{Code: EnforcerKeyNeeded, Number: 20001, Status: 401, Text: "An enforcer key is needed",
		When: "A verification endpoint was asked without the key of an enrolled enforcer."},
}

var permissions = []Entry{
	{Code: NotPermitted, Number: 9109, Status: 403, Text: "Unauthorized to access requested resource",
		When: "The credential lacks a permission on users, accounts or tokens."},
	{Code: PermissionMissing, Number: 10000, Status: 403, Text: "Authentication error",
		When: "The credential lacks the permission or the resource on any other endpoint."},
	{Code: ListNotPermitted, Number: 10000, Status: 403, Text: "Actor requires permission",
		When: "A list reaches beyond what the credential may list; the detail names the permission. (Cloudflare sends number 0 here, below the lowest that its own schema allows.)"},
	{Code: AccountTokenRefused, Number: 9106, Status: 400, Text: "Authentication failed",
		When: "An account token was used where only a user can be meant, such as memberships."},
	{Code: NoAccountList, Number: 1001, Status: 400, Text: "List accounts endpoint does not support account owned tokens.",
		When: "Reserved: Cloudflare's older answer to account tokens. Watchword's list holds exactly the token's account."},
	{Code: TokensNotSupported, Number: 10000, Status: 405, Text: "This method with API Tokens is not supported by this API",
		When: "The endpoint takes the Global API Key or a session, no token."},
}

var routes = []Entry{
	{Code: UnknownRoute, Number: 7000, Status: 404, Text: "No route for that URI",
		When: "The path is none of ours."},
	{Code: InvalidID, Number: 7003, Status: 404, Text: textRoute,
		Chain: []Link{{7000, "No route for that URI"}},
		When:  "An id in the path is not 32 lower-case hexadecimal digits."},
	{Code: MethodNotAllowed, Number: 20002, Status: 405, Text: "Method not allowed",
		When: "The path exists, with other methods: see the Allow header."},
	{Code: TokenNotFound, Number: 1003, Status: 404, Text: "token not found",
		When: "No token of that id, or another owner's: the answers are alike."},
	{Code: AccountNotFound, Number: 1003, Status: 404, Text: "account not found",
		When: "No account of that id, or one that the caller is no member of."},
	{Code: UserNotFound, Number: 1003, Status: 404, Text: "user not found",
		When: "No user of that id, or one whom the caller may not see."},
	{Code: EnforcerNotFound, Number: 1003, Status: 404, Text: "enforcer not found",
		When: "No enforcer of that id."},
	{Code: ConsumerNotFound, Number: 1003, Status: 404, Text: "consumer not found",
		When: "No event consumer of that id."},
	{Code: MemberNotFound, Number: 1003, Status: 404, Text: "member not found",
		When: "No membership of that id in the account."},
	{Code: ResourceNotFound, Number: 1003, Status: 404, Text: "resource not found",
		When: "No registered resource of that type and id, or one that lies where the caller may not look."},
	{Code: ObjectNotFound, Number: 1003, Status: 404, Text: "not found",
		When: "No other object of that id, or one that the caller may not see."},
}

var contents = []Entry{
	{Code: InvalidJSON, Number: 9207, Status: 400, Text: textBody,
		When: "The body is not JSON, or a value has the wrong type."},
	{Code: MissingBody, Number: 9207, Status: 400, Text: textBody + " It is empty.",
		When: "The endpoint needs a body."},
	{Code: DuplicateKey, Number: 9207, Status: 400, Text: textBody + " An object holds the same key twice.",
		When: "A key stands twice in one object, so that two readers could see two requests."},
	{Code: TooDeep, Number: 9207, Status: 400, Text: textBody + " It is nested too deeply.",
		When: "Arrays and objects are nested beyond the limit."},
	{Code: BodyTooLarge, Number: 20003, Status: 413, Text: "Request body is too large",
		When: "The body is larger than the endpoint takes; the detail is the limit."},
	{Code: UnsupportedContentType, Number: 20004, Status: 415, Text: "Content type is not supported",
		When: "Anything but JSON for a JSON endpoint (roll, delete, disable and enable also take what curl says of its own accord), or anything but a form for introspection."},
	{Code: InvalidField, Number: 1001, Status: 400, Text: "Invalid field",
		When: "A field of the body has a value that is not allowed, and no narrower code fits."},
	{Code: InvalidParameter, Number: 1001, Status: 400, Text: "Invalid query parameter",
		When: "A parameter of the query, such as page or per_page, is out of range."},
	{Code: InvalidHeader, Number: 1001, Status: 400, Text: "Invalid header",
		When: "A Watchword or Idempotency-Key header cannot be read."},
	{Code: InvalidText, Number: 1001, Status: 400, Text: "Text holds characters that are not allowed",
		When: "Control characters (line breaks, NUL) or broken UTF-8."},
	{Code: InvalidName, Number: 1001, Status: 400, Text: "Invalid name",
		When: "The name is empty or too long."},
	{Code: InvalidPolicies, Number: 1001, Status: 400, Text: "Invalid policies",
		When: "No policy, too many of them, or one without permission groups or resources."},
	{Code: InvalidEffect, Number: 1001, Status: 400, Text: "Invalid effect",
		When: "A policy's effect is neither allow nor deny."},
	{Code: InvalidResources, Number: 1001, Status: 400, Text: "Invalid resources",
		When: "A resource key of no known type, a value other than \"*\", nesting deeper than one level, or flat and nested keys in one object."},
	{Code: InvalidCondition, Number: 1001, Status: 400, Text: "Invalid condition",
		When: "The condition is of an unknown shape, or its lists are too long."},
	{Code: ConditionMismatch, Number: 1001, Status: 400, Text: "Invalid condition: request_ip and request.ip differ",
		When: "The two spellings of the address condition are both given and say different things."},
	{Code: InvalidCIDR, Number: 1001, Status: 400, Text: "Invalid IP address or CIDR",
		When: "An element of in or not_in is no IPv4 or IPv6 address or prefix."},
	{Code: InvalidTimes, Number: 1001, Status: 400, Text: "Invalid not_before or expires_on",
		When: "A time is not RFC 3339, out of range, or the token would never be valid."},
	{Code: InvalidStatus, Number: 1001, Status: 400, Text: "Invalid status",
		When: "A status other than active or disabled was asked for."},
	{Code: InvalidGrace, Number: 1001, Status: 400, Text: "Invalid grace",
		When: "The grace of a roll is no duration, negative or beyond the limit."},
	{Code: InvalidReason, Number: 1001, Status: 400, Text: "Invalid reason",
		When: "The reason of a revocation is too long or of an unknown kind."},
	{Code: InvalidRoles, Number: 1001, Status: 400, Text: "Invalid roles",
		When: "A membership without roles, with too many, or with one that the catalogue does not hold."},
	{Code: InvalidResourceType, Number: 1001, Status: 400, Text: "Invalid resource type",
		When: "A type that the catalogue does not hold, or one whose resources are not registered: users and accounts."},
	{Code: InvalidParent, Number: 1001, Status: 400, Text: "Invalid parent",
		When: "The parent is not registered, has ended, is of another type than the catalogue says, or lies in the resource itself."},
	{Code: UnknownPermissionGroup, Number: 1001, Status: 400, Text: "Unknown permission group",
		When: "A policy names a permission group that the catalogue does not hold."},
	{Code: GroupScopeMismatch, Number: 1001, Status: 400, Text: textCommon,
		When: "A policy names a permission group and no resource of the group's scope; the detail names the group."},
	{Code: GroupNotHeld, Number: 1001, Status: 400, Text: textCommon,
		When: "The caller would grant what the caller does not hold; the detail names the group."},
	{Code: RoleNotHeld, Number: 20026, Status: 400, Text: "The role gives more than the caller holds",
		When: "The caller would give a role, or take one away, that holds what the caller does not hold in the account."},
	{Code: GroupNotForUserTokens, Number: 1001, Status: 400, Text: "User tokens cannot reference roles with granular resource scopes",
		When: "A user token's policy names a group that is for account tokens only."},
	{Code: InvalidVerifyRequest, Number: 20005, Status: 400, Text: "Invalid verification request",
		When: "The secret, permission, resource chain or address of a verification has no valid form."},
	{Code: BatchTooLarge, Number: 20006, Status: 400, Text: "Too many requests in one batch",
		When: "A batch holds more verifications, or an import more tokens, than the limit."},
	{Code: InvalidCatalogue, Number: 20030, Status: 400, Text: "Invalid catalogue",
		When: "A catalogue with a mistake, which the detail tells; nothing is published."},
	{Code: ReceiptRefused, Number: 20033, Status: 400, Text: "Not a receipt of this enforcer",
		When: "A receipt over HTTP that is malformed, or not signed by the enforcer whose key came with it, or more than a minute old or early by the clock of the node."},
}

var states = []Entry{
	{Code: TokenRevoked, Number: 1003, Status: 404, Text: "token not found: it was revoked",
		When: "A change of a token that was revoked, asked for by one who may see it."},
	{Code: AlreadyRevoked, Number: 1003, Status: 404, Text: "token not found: it was already revoked",
		When: "A second revocation."},
	{Code: TokenDisabled, Number: 20007, Status: 400, Text: "The token is disabled",
		When: "The command needs an enabled token."},
	{Code: TokenExpired, Number: 20008, Status: 400, Text: "The token has expired",
		When: "The command needs a token that has not expired."},
	{Code: GraceRunning, Number: 20009, Status: 400, Text: "An earlier roll's grace is still running",
		When: "A second roll while the previous secret is still valid; force it, or wait until the time in the detail."},
	{Code: ExpiryRequired, Number: 20041, Status: 400, Text: "The account's policy requires that tokens expire",
		When: "A token without expires_on that reaches into an account whose policy bounds lifetimes or requires an end."},
	{Code: LifetimeTooLong, Number: 20042, Status: 400, Text: "The account's policy does not allow so long a lifetime",
		When: "The time from now to expires_on is longer than the policy of an account into which the token reaches allows; the detail is the bound."},
	{Code: AddressRequired, Number: 20043, Status: 400, Text: "The account's policy requires that tokens name addresses",
		When: "A token that reaches into such an account, without request.ip.in or with all addresses in it."},
	{Code: QuotaReached, Number: 20010, Status: 400, Text: "The owner's quota of tokens is used up",
		When: "The owner has as many tokens, not counting revoked ones, as the installation or the account's policy allows; the detail is the limit. (Cloudflare's own answer is not documented.)"},
	{Code: Conflict, Number: 20011, Status: 400, Text: "The object was changed or exists already",
		When: "The command rests on a state that is not the present one. (Not 409: cloudflare-go repeats that for minutes.)"},
	{Code: RepeatMismatch, Number: 20012, Status: 400, Text: "The Idempotency-Key was used for another request",
		When: "A declared repeat whose body is not the first one's."},
	{Code: UpkeepRunning, Number: 20023, Status: 400, Text: "Another piece of upkeep is running",
		When: "A rebuild or a check was asked for while one is under way; GET /v1/upkeep shows it."},
	{Code: NotEmpty, Number: 20013, Status: 400, Text: "The object is still in use",
		When: "The removal of a thing on which others depend."},
	{Code: LastAdministrator, Number: 20027, Status: 400, Text: "The account needs a Super Administrator",
		When: "The only Super Administrator of an account would lose the role or leave; only an operator may do that."},
	{Code: CatalogueInUse, Number: 20031, Status: 400, Text: "The catalogue drops what is in use",
		When: "Tokens or members use what a catalogue would drop; ?dry_run=true lists them, and ?force=true publishes it all the same."},
	{Code: FeedRewound, Number: 20060, Status: 410, Text: "The ledger ends before this position",
		When: "The feed was asked for what comes after a sequence that the ledger has not reached: it has lost something, or is another one. Do not go on from there."},
	{Code: FeedReplaced, Number: 20061, Status: 410, Text: "The position is of another epoch of the ledger",
		When: "The feed was asked for what comes after an event that is not in the ledger. Do not go on from there."},
}

var outages = []Entry{
	{Code: RateLimited, Number: 20014, Status: 429, RetryAfter: time.Second,
		Text: "Too many requests",
		When: "More requests or wrong credentials than a limit allows: the Ratelimit header names it. A good credential is never refused for wrong ones."},
	{Code: NoPen, Number: 20015, Status: 503, RetryAfter: 2 * time.Second,
		Text: "Changes cannot be accepted at the moment",
		When: "No writer holds the ledger's pen: one is being replaced, or this node cannot reach it. Nothing was changed."},
	{Code: OutcomeUnknown, Number: 20016, Status: 503, RetryAfter: 2 * time.Second,
		Text: "Whether the change was accepted is not known",
		When: "The answer of the writer or of the ledger was lost. Repeat the request with the same Idempotency-Key."},
	{Code: LedgerRefused, Number: 20017, Status: 503, RetryAfter: 30 * time.Second,
		Text: "The ledger cannot accept changes",
		When: "The disk is full or a check of the ledger failed: an operator must act. Nothing was changed."},
	{Code: StaleIndex, Number: 20018, Status: 503, RetryAfter: time.Second,
		Text: "The verification index is older than its bound",
		When: "This node has not heard of the ledger's head for too long to answer safely."},
	{Code: NotReady, Number: 20019, Status: 503, RetryAfter: time.Second,
		Text: "This node is not ready",
		When: "A projection is still catching up after a start, or the node is stopping."},
	{Code: WaitTimedOut, Number: 20020, Status: 503, RetryAfter: time.Second,
		Text: "The sequence of Watchword-At-Least was not reached in time",
		When: "The index did not reach the sequence that the caller asked for."},
	{Code: Overloaded, Number: 20021, Status: 503, RetryAfter: time.Second,
		Text: "Too much is waiting; try again",
		When: "A queue inside the service is full. Nothing was changed."},
	{Code: Unavailable, Number: 20022, Status: 503, RetryAfter: time.Second,
		Text: "No answer in time",
		When: "A time limit passed, or a part that was asked gave no answer. A change may have happened."},
	{Code: Internal, Number: 20000, Status: 500, Text: "Internal error",
		When: "A fault of ours. The log has the cause under the request's id."},
}

var byCode = index(catalogue)

// All returns the catalogue in the order of its documentation.
func All() []Entry { return append([]Entry(nil), catalogue...) }

func concat(parts ...[]Entry) []Entry {
	var all []Entry
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

// index panics when a code stands twice: the program must not start with two
// meanings of one word.
func index(all []Entry) map[Code]Entry {
	m := make(map[Code]Entry, len(all))
	for _, e := range all {
		if _, ok := m[e.Code]; ok {
			panic(fmt.Sprintf("fault: %s stands twice in the catalogue", e.Code))
		}
		m[e.Code] = e
	}
	return m
}
