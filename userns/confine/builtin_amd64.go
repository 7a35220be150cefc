package confine

import _ "embed"

//go:embed builtin_amd64.bpf
var builtin string
