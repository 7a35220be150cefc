package image

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"syscall"
)

// Platform is what an image is built for, in Go's words (GOOS, GOARCH), as in
// an index's entry or --platform. Normalize decides which spelling is used.
type Platform struct {
	OS      string `json:"os"`
	Arch    string `json:"architecture"`
	Variant string `json:"variant,omitempty"` // as in "v7" of arm
}

// Host returns the platform of this machine.
func Host() Platform {
	p := Platform{OS: "linux", Arch: runtime.GOARCH}
	if p.Arch == "arm" {
		p.Variant = armVariant()
	}
	return p.Normalize()
}

// armVariant reads the variant from the kernel's machine name, as in "armv6l".
func armVariant() string {
	var u syscall.Utsname
	if syscall.Uname(&u) == nil {
		machine := make([]byte, 0, len(u.Machine))
		for _, c := range u.Machine {
			machine = append(machine, byte(c))
		}
		if rest, found := strings.CutPrefix(string(machine), "armv"); found && isDigit(rest[0]) && rest[0] < '8' {
			return "v" + rest[:1]
		}
	}
	return "v7"
}

// ParsePlatform reads os/arch/variant, os/arch or arch, as --platform takes
// them. The names that uname prints, such as x86_64, are understood. rbox runs
// Linux images only, so any other system is an error.
func ParsePlatform(s string) (Platform, error) {
	parts := strings.Split(strings.ToLower(s), "/")
	for _, part := range parts {
		if !isPlatformWord(part) {
			return Platform{}, &PlatformError{Platform: s, Why: "it is not OS/ARCH[/VARIANT]"}
		}
	}
	var p Platform
	switch {
	case len(parts) == 1 && parts[0] == "linux":
		return Host(), nil
	case len(parts) == 1:
		p = Platform{OS: "linux", Arch: parts[0]}
	case len(parts) == 2 && parts[0] != "linux" && isArch(parts[0]): // "arm/v7"
		p = Platform{OS: "linux", Arch: parts[0], Variant: parts[1]}
	case len(parts) == 2:
		p = Platform{OS: parts[0], Arch: parts[1]}
	case len(parts) == 3:
		p = Platform{OS: parts[0], Arch: parts[1], Variant: parts[2]}
	default:
		return Platform{}, &PlatformError{Platform: s, Why: "it has more than three parts"}
	}
	p = p.Normalize()
	if p.OS != "linux" {
		return Platform{}, &PlatformError{Platform: s, Why: "rbox runs Linux images only"}
	}
	if !isArch(p.Arch) {
		return Platform{}, &PlatformError{Platform: s, Why: "no architecture is called " + quote(p.Arch)}
	}
	return p, nil
}

// PlatformError reports a platform that was asked for in words that name none.
type PlatformError struct{ Platform, Why string }

func (e *PlatformError) Error() string { return "platform " + quote(e.Platform) + ": " + e.Why }

// Hint is what the user can do.
func (e *PlatformError) Hint() string {
	return "platforms look like linux/amd64, linux/arm64 or linux/arm/v7"
}

func isPlatformWord(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; !(isLower(c) || isDigit(c) || c == '_' || c == '.' || c == '-') {
			return false
		}
	}
	return s != "" && len(s) <= 32
}

func isArch(s string) bool {
	switch s {
	case "386", "amd64", "arm", "arm64", "loong64", "mips", "mipsle", "mips64", "mips64le",
		"ppc64", "ppc64le", "riscv64", "s390x", "wasm":
		return true
	}
	return false
}

// Normalize returns p in the one spelling that comparisons use: x86_64 is
// amd64, aarch64 is arm64, arm without a variant is v7, and the variants that
// every processor of an architecture has are left out.
func (p Platform) Normalize() Platform {
	p.OS, p.Arch, p.Variant = strings.ToLower(p.OS), strings.ToLower(p.Arch), strings.ToLower(p.Variant)
	switch p.Arch {
	case "x86_64", "x86-64":
		p.Arch = "amd64"
	case "i386", "i486", "i586", "i686", "x86":
		p.Arch, p.Variant = "386", ""
	case "aarch64":
		p.Arch = "arm64"
	case "armhf", "armv7l", "armv7":
		p.Arch, p.Variant = "arm", "v7"
	case "armel", "armv6l", "armv6":
		p.Arch, p.Variant = "arm", "v6"
	}
	if n := p.Variant; n != "" && isDigit(n[0]) {
		p.Variant = "v" + n // "7" or "8"
	}
	switch {
	case p.Arch == "arm" && p.Variant == "":
		p.Variant = "v7"
	case p.Arch == "arm64" && p.Variant == "v8", p.Arch == "amd64" && p.Variant == "v1":
		p.Variant = ""
	}
	return p
}

// String returns os/arch[/variant].
func (p Platform) String() string {
	s := p.OS + "/" + p.Arch
	if p.Variant != "" {
		s += "/" + p.Variant
	}
	return s
}

// Runs says whether a machine of platform p can run what is built for q.
func (p Platform) Runs(q Platform) bool {
	p, q = p.Normalize(), q.Normalize()
	return p == q || slices.Contains(p.runs(), q)
}

// runs lists what a machine of platform p can run, best first: its own
// variant, then the earlier ones, then the 32-bit sibling.
func (p Platform) runs() []Platform {
	list := []Platform{p}
	add := func(arch string, variants ...string) {
		for _, v := range variants {
			list = append(list, Platform{p.OS, arch, v}.Normalize())
		}
	}
	level := func(variant string) int {
		if len(variant) == 2 && variant[0] == 'v' && isDigit(variant[1]) {
			return int(variant[1] - '0')
		}
		return 0
	}
	down := func(arch string, from, to int) {
		for v := from; v >= to; v-- {
			add(arch, fmt.Sprintf("v%d", v))
		}
	}
	switch p.Arch {
	case "amd64":
		down("amd64", level(p.Variant)-1, 1)
		add("386", "")
	case "arm64":
		down("arm64", level(p.Variant)-1, 8)
		down("arm", 8, 5)
	case "arm":
		down("arm", level(p.Variant)-1, 5)
	}
	return list
}

// Select returns the entry of x that suits p best. Attestations and artifacts
// are passed over. The entry may itself be an index, where no image suits. An
// index with nothing for p gives a *NoPlatformError.
func (x *Index) Select(p Platform) (Descriptor, error) {
	p = p.Normalize()
	rank := p.runs()
	best, bestScore := -1, 0
	for i, d := range x.Manifests {
		score := scoreEntry(d, rank)
		if score > bestScore {
			best, bestScore = i, score
		}
	}
	if best < 0 {
		return Descriptor{}, &NoPlatformError{Wanted: p, Offered: x.platforms()}
	}
	return x.Manifests[best], nil
}

// scoreEntry is zero for an entry that cannot serve, else higher the better.
// An entry that says nothing of its platform is the last resort.
func scoreEntry(d Descriptor, rank []Platform) int {
	isIndex := IsIndexType(d.MediaType)
	if !isIndex && !isManifestType(d.MediaType) || d.isAttachment() {
		return 0
	}
	score := 1
	if d.Platform != nil && d.Platform.OS != "" {
		i := slices.Index(rank, d.Platform.Normalize())
		if i < 0 {
			return 0
		}
		score = 2 + len(rank) - i
	}
	if isIndex { // an image beats an index of more images
		return score
	}
	return score + len(rank) + 2
}

// platforms lists what x offers, for an error.
func (x *Index) platforms() []string {
	var list []string
	for _, d := range x.Manifests {
		if d.Platform == nil || d.isAttachment() {
			continue
		}
		if s := d.Platform.Normalize().String(); !slices.Contains(list, s) {
			list = append(list, s)
		}
	}
	return list
}

// NoPlatformError reports that an image is not built for the platform wanted.
type NoPlatformError struct {
	Image   string // set by whoever knows the name
	Wanted  Platform
	Offered []string
}

func (e *NoPlatformError) Error() string {
	s := "no image for " + e.Wanted.String()
	if e.Image != "" {
		s = e.Image + ": " + s
	}
	return s
}

// Hint is what the user can do.
func (e *NoPlatformError) Hint() string {
	if len(e.Offered) == 0 {
		return "the index holds no image at all: is this a chart or another artifact?"
	}
	shown := e.Offered[:min(len(e.Offered), 12)]
	hint := "it is built for " + quoteFree(strings.Join(shown, ", "))
	if len(shown) < len(e.Offered) {
		hint += ", …"
	}
	return hint + ": choose one with --platform"
}

// quoteFree drops what could harm a terminal from text of a registry.
func quoteFree(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '?'
		}
		return r
	}, s)
}
