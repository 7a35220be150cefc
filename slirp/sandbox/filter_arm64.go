package sandbox

import _ "embed"

//go:embed private_arm64.bpf
var private string

//go:embed named_arm64.bpf
var named string
