package container

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"
)

func TestStateReadsBack(t *testing.T) {
	now := time.Now().UTC()
	for name, s := range map[string]State{
		"zero":    {},
		"running": {Pid: 12, StartTime: 1 << 60, BootID: "b0", Started: now},
		"ended":   {StartTime: 3, BootID: "b0", Started: now, Finished: now.Add(time.Second), ExitStatus: 137},
	} {
		t.Run(name, func(t *testing.T) {
			var back State
			if err := json.Unmarshal(s.appendJSON(nil), &back); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(s, back) {
				t.Errorf("want %+v, got %+v", s, back)
			}
		})
	}
}
