package measure

import "github.com/prometheus/procfs"

// processorTime is that of the whole machine so far, in seconds; zero where it is not known.
type processorTime struct{ idle, total float64 }

// processors is the machine's processor time up to now.
func processors() processorTime {
	machine, err := procfs.NewDefaultFS()
	if err != nil {
		return processorTime{}
	}
	stat, err := machine.Stat()
	if err != nil {
		return processorTime{}
	}
	all := stat.CPUTotal
	idle := all.Idle + all.Iowait
	return processorTime{idle: idle, total: idle + all.User + all.Nice + all.System + all.IRQ + all.SoftIRQ + all.Steal}
}

// busyUntil is the part of the time between two moments that was in use; zero when it is not known.
func (p processorTime) busyUntil(later processorTime) float64 {
	total := later.total - p.total
	if p.total == 0 || total <= 0 {
		return 0
	}
	return 1 - (later.idle-p.idle)/total
}
