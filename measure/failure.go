package measure

// Failure is the outcome of a step that did not succeed, in the vocabulary of
// OONI's df-007 to the letter. The empty Failure is success. What is not in
// the vocabulary is "unknown_failure: " and the operating system's text.
type Failure string

// The failures of OONI's df-007 that a step can end in.
const (
	NoFailure             Failure = ""
	GenericTimeout        Failure = "generic_timeout_error"
	ConnectionRefused     Failure = "connection_refused"
	ConnectionReset       Failure = "connection_reset"
	ConnectionAborted     Failure = "connection_aborted"
	EOF                   Failure = "eof_error"
	HostUnreachable       Failure = "host_unreachable"
	NetworkUnreachable    Failure = "network_unreachable"
	NetworkDown           Failure = "network_down"
	AddressNotAvailable   Failure = "address_not_available"
	AddressInUse          Failure = "address_in_use"
	PermissionDenied      Failure = "permission_denied"
	DNSNXDomain           Failure = "dns_nxdomain_error"
	DNSNoAnswer           Failure = "dns_no_answer"
	DNSBogon              Failure = "dns_bogon_error"
	DNSRefused            Failure = "dns_refused_error"
	DNSServfail           Failure = "dns_servfail_error"
	DNSTemporary          Failure = "dns_temporary_failure"
	DNSNonRecoverable     Failure = "dns_non_recoverable_failure"
	DNSReplyWrongID       Failure = "dns_reply_with_wrong_query_id"
	AndroidDNSCacheNoData Failure = "android_dns_cache_no_data"
	TLSInvalidHostname    Failure = "ssl_invalid_hostname"
	TLSUnknownAuthority   Failure = "ssl_unknown_authority"
	TLSInvalidCert        Failure = "ssl_invalid_certificate"
	TLSFailedHandshake    Failure = "ssl_failed_handshake"
	QUICIncompatible      Failure = "quic_incompatible_version"
	Interrupted           Failure = "interrupted"
	Unsupported           Failure = "not_supported"      // this system cannot take the step; ours
	TooLarge              Failure = "response_too_large" // a bound of ours was reached; ours
	UnknownFailurePrefix          = "unknown_failure: "
)
