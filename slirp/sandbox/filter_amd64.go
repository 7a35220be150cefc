package sandbox

import _ "embed"

//go:embed private_amd64.bpf
var private string

//go:embed named_amd64.bpf
var named string
