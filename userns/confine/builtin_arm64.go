package confine

import _ "embed"

//go:embed builtin_arm64.bpf
var builtin string
