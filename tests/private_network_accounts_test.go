package tests

import (
	"testing"

	"rbox/tests/account"
)

// The network is the same for whoever the user is, outside and in.
func TestPrivateNetworkOfAllAccounts(t *testing.T) {
	t.Parallel()
	port := hostServer(t, "127.0.0.1")
	script := gateway + "wget -T5 -qO- http://$gw:" + port + "/hello; ping -c1 -W5 $gw >/dev/null; echo $?"
	for name, tc := range map[string]struct {
		who   func(testing.TB) account.Account
		flags []string
	}{
		"one id":          {who: single},
		"root":            {who: root},
		"keep-id":         {flags: []string{"--userns", "keep-id"}},
		"a user":          {flags: []string{"--user", "1000"}},
		"read-only":       {flags: []string{"--read-only"}},
		"init":            {flags: []string{"--init"}},
		"the host's pids": {flags: []string{"--pid", "host"}},
		"other clocks":    {flags: []string{"--time-offset", "boottime=60"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var b *box
			if tc.who != nil {
				b = newBox(t, as(tc.who(t)))
			} else {
				b = newBox(t)
			}
			for _, link := range []string{"tap", "veth"} {
				want{stdout: "hello\n0\n"}.check(t, b.sh(script, append(tc.flags, "--network", "private:host-loopback,link="+link)...))
			}
		})
	}
}
