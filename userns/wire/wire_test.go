package wire

import (
	"errors"
	"net/netip"
	"reflect"
	"testing"
)

type inner struct {
	Name string
	N    int64
}

type sample struct {
	On     bool
	Small  uint8
	Big    uint64
	Less   int
	Text   string
	Raw    []byte
	List   []string
	Pairs  [][2]string
	Sub    inner
	Subs   []inner
	Ptr    *inner
	Nil    *inner
	Map    map[string]int64
	Addr   netip.Addr
	Nets   []netip.Prefix
	hidden int
}

func full() sample {
	return sample{
		On: true, Small: 255, Big: 1<<64 - 1, Less: -5, Text: "a\x00é", Raw: []byte{0, 1}, List: []string{"x", ""},
		Pairs: [][2]string{{"k", "v"}}, Sub: inner{"s", 1}, Subs: []inner{{"t", -1}, {}}, Ptr: &inner{"p", 1 << 62},
		Map:  map[string]int64{"one": 1, "minus": -1},
		Addr: netip.MustParseAddr("fe80::1%eth0"), Nets: []netip.Prefix{netip.MustParsePrefix("10.0.2.0/24"), {}},
	}
}

func TestThereAndBack(t *testing.T) {
	for name, in := range map[string]sample{"full": full(), "zero": {}} {
		t.Run(name, func(t *testing.T) {
			var out sample
			if err := Read(Append(nil, in), &out); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(in, out) {
				t.Errorf("want %+v, got %+v", in, out)
			}
		})
	}
}

func TestHiddenFieldsStay(t *testing.T) {
	var out sample
	if err := Read(Append(nil, sample{hidden: 7}), &out); err != nil || out.hidden != 0 {
		t.Errorf("%+v, %v", out, err)
	}
}

func TestCutShort(t *testing.T) {
	whole := Append(nil, full())
	for n := range whole {
		if err := Read(whole[:n], new(sample)); !errors.Is(err, ErrShort) {
			t.Fatalf("%d of %d bytes: %v", n, len(whole), err)
		}
	}
	if err := Read(append(whole, 0), new(sample)); !errors.Is(err, ErrShort) {
		t.Errorf("a byte too many: %v", err)
	}
}

func FuzzRead(f *testing.F) {
	f.Add(Append(nil, full()))
	f.Add([]byte{1, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		var v sample
		if Read(b, &v) != nil {
			return
		}
		var again sample
		if err := Read(Append(nil, v), &again); err != nil || !reflect.DeepEqual(v, again) {
			t.Errorf("%+v reads back as %+v, %v", v, again, err)
		}
	})
}
