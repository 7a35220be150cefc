//go:build !front

package main

import (
	"fmt"
	"slices"
	"strings"
)

// A filterError reports a --filter that means nothing.
type filterError struct{ text, why, advice string }

func (e *filterError) Error() string { return fmt.Sprintf("--filter %s: %s", e.text, e.why) }
func (e *filterError) Hint() string  { return e.advice }

// filterValues sorts filters by their keys, which must be among known. All
// commands read them as Docker does: the values of one key are alternatives,
// but for labels; each key must be met.
func filterValues(filters []string, known ...string) (map[string][]string, error) {
	values := map[string][]string{}
	for _, f := range filters {
		key, value, ok := strings.Cut(f, "=")
		switch {
		case !ok, value == "" && strings.HasPrefix(key, "label"):
			return nil, &filterError{f, "it has no value", "such as --filter " + known[0] + "=VALUE"}
		case !slices.Contains(known, key):
			return nil, &filterError{f, "there is no such filter", "filters are " + strings.ReplaceAll(strings.Join(known, ", "), "!", "! (not)")}
		}
		values[key] = append(values[key], value)
	}
	return values, nil
}

// among refuses values other than words.
func among(key string, values []string, words ...string) error {
	for _, v := range values {
		if !slices.Contains(words, v) {
			return &filterError{key + "=" + v, "invalid filter", key + " is one of " + strings.Join(words, ", ")}
		}
	}
	return nil
}

// boolFilter reads the values of a filter that is met or not.
func boolFilter(key string, values []string) (func(met bool) bool, error) {
	if err := among(key, values, "true", "false", "1", "0"); err != nil {
		return nil, err
	}
	yes := slices.Contains(values, "true") || slices.Contains(values, "1")
	no := slices.Contains(values, "false") || slices.Contains(values, "0")
	return func(met bool) bool { return met && yes || !met && no }, nil
}

// hasLabels tells whether labels has all of wanted, each NAME or NAME=VALUE.
func hasLabels(labels map[string]string, wanted []string) bool {
	return !slices.ContainsFunc(wanted, func(w string) bool { return !hasLabel(labels, w) })
}

// lacksLabels tells whether labels has none of unwanted.
func lacksLabels(labels map[string]string, unwanted []string) bool {
	return !slices.ContainsFunc(unwanted, func(u string) bool { return hasLabel(labels, u) })
}

func hasLabel(labels map[string]string, wanted string) bool {
	name, value, exact := strings.Cut(wanted, "=")
	have, ok := labels[name]
	return ok && (!exact || have == value)
}
