package main

import (
	"io"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/alecthomas/kong"
)

// slowParse is what quickParse stands in for.
func slowParse(args []string) (*RunCmd, error) {
	var g struct {
		Run RunCmd `cmd:""`
	}
	parser, err := kong.New(&g, kong.NoDefaultHelp(), kong.Writers(io.Discard, io.Discard))
	if err != nil {
		return nil, err
	}
	_, err = parser.Parse(append([]string{"run"}, args...))
	return &g.Run, err
}

// Whatever quickParse takes, kong takes in the same way.
func agree(t *testing.T, args []string) (taken bool) {
	t.Helper()
	var quickly RunCmd
	if !quickParse(&quickly, args) {
		return false
	}
	slowly, err := slowParse(args)
	if err != nil {
		t.Fatalf("%q: kong refuses: %v", args, err)
	}
	if !reflect.DeepEqual(&quickly, slowly) {
		t.Errorf("%q:\nquick %+v\nkong  %+v", args, quickly, *slowly)
	}
	return true
}

func TestQuickParseAgreesWithKong(t *testing.T) {
	for line, quick := range map[string]bool{
		"alpine": true, "--rm alpine true": true, "--rm --network none alpine true": true,
		"-it --rm alpine sh -c ls -la": true, "-itv /a:/b -e A=1 -e B --name x alpine": true,
		"-v/a:/b -w /x -u 1:2 alpine": true, "--network=host --read-only --init alpine --rm": true,
		"--net host alpine": true, "--entrypoint= alpine a": true, "--entrypoint sh alpine -c x": true,
		"-h box -l a=b,c --label d alpine": true, "--preserve-fds 3 alpine": true, "--ulimit nofile=1:2 --shm-size 1g alpine": true,
		"--group-add keep-groups --userns keep-id --pull never -q alpine": true, "--env-file f --tmpfs /t --mount type=tmpfs,target=/x alpine": true,
		"--add-host a:1.2.3.4 --dns 1.1.1.1 --device /dev/null --time-offset boottime=1 alpine": true, "--rootfs dir sh": true,
		"": false, "--rm": false, "--rm=false alpine": false, "--help": false, "--nosuch alpine": false, "-Z alpine": false,
		"--network bridge --net web:ip=1.2.3.4 -p 80:80 -P alpine": true, "--create alpine": false, "--preserve-fds x alpine": false, "-- alpine": false, "--name": false, "-e": false,
		"--tls-verify=false alpine": false, "--no-tls-verify alpine": false, "-i=true alpine": false,
	} {
		if got := agree(t, strings.Fields(line)); got != quick {
			t.Errorf("%q: quick is %v, want %v", line, got, quick)
		}
	}
}

// Every flag of run goes the quick way or to kong, and comes out the same.
func TestQuickParseKnowsTheFlags(t *testing.T) {
	var g struct {
		Run RunCmd `cmd:""`
	}
	parser, err := kong.New(&g, kong.NoDefaultHelp())
	if err != nil {
		t.Fatal(err)
	}
	taken := 0
	for _, flag := range parser.Model.Children[0].Flags {
		for _, line := range []string{"--" + flag.Name + " alpine", "--" + flag.Name + " 1 alpine x", "--" + flag.Name + "=host alpine"} {
			if agree(t, strings.Fields(line)) {
				taken++
			}
		}
	}
	if taken < len(parser.Model.Children[0].Flags) {
		t.Errorf("only %d lines with one flag went the quick way", taken)
	}
}

func FuzzQuickParse(f *testing.F) {
	f.Add("--rm\x00-it\x00alpine\x00sh")
	f.Add("-e\x00A=1\x00--name=x\x00a")
	f.Add("--network\x00host\x00-vx:y\x00a\x00--")
	f.Fuzz(func(t *testing.T, line string) {
		if utf8.ValidString(line) { // kong replaces what is not, which commands may well need
			agree(t, strings.Split(line, "\x00"))
		}
	})
}
