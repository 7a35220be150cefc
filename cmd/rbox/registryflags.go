package main

// registryFlags are what all commands that talk to a registry take.
type registryFlags struct {
	Authfile  string `help:"File with credentials, instead of the usual ones (default $$REGISTRY_AUTH_FILE)." placeholder:"FILE"`
	TLSVerify *bool  `name:"tls-verify" negatable:"" help:"Require a valid certificate of the registry; --tls-verify=false accepts any, and plain HTTP."`
}
