package streams

import "testing"

func TestAtLeast_ReadsTheVersionAServerReports(t *testing.T) {
	t.Parallel()
	for version, want := range map[string]bool{
		"2.12.0": true, "2.15.2": true, "3.0.0": true, "2.12.0-RC.1": true,
		"2.11.9": false, "1.99.0": false, "": false, "dev": false,
	} {
		if got := atLeast(version, 2, 12); got != want {
			t.Errorf("atLeast(%q, 2, 12) = %v, want %v", version, got, want)
		}
	}
}
