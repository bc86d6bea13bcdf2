package podrules

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// gate is a condition that somebody else is to write.
const gate = "example.com/serving"

// rule is a pod and what the API is to tell of it in the end.
type rule struct {
	name     string
	manifest string // SCRIPT's image is put in.
	told     func(*corev1.Pod) string
	want     string
	deleted  bool // It is deleted once it is ready, and told is asked of what was seen last.
}

// script is a pod with one container that runs a script.
func script(text string, more ...string) string {
	return `{"spec":{"terminationGracePeriodSeconds":2,"volumes":[{"name":"data","emptyDir":{}}],"containers":[{"name":"main","image":"SHELL",` +
		`"volumeMounts":[{"name":"data","mountPath":"/data"}],"args":["` + text + `"]` + strings.Join(more, "") + `}]}}`
}

// with puts more into the specification of a pod.
func with(manifest, more string) string {
	return strings.Replace(manifest, `{"spec":{`, `{"spec":{`+more+`,`, 1)
}

const forever = "while :; do sleep 0.1; done"

// rules are the pods.
func rules() []rule { return slices.Concat(endings(), probed()) }

// endings are pods that end, or that never start.
func endings() []rule {
	return []rule{
		{
			name:     "back-off-keeps-the-last-words",
			manifest: script("echo first; echo last; exit 3", `,"terminationMessagePolicy":"FallbackToLogsOnError"`),
			told:     waitingAndLast, want: "CrashLoopBackOff after Error 3 first\nlast\n, phase Running",
		},
		{
			name: "message-from-the-file", manifest: script("echo -n word > dev/termination-log; exit 1"),
			told: waitingAndLast, want: "CrashLoopBackOff after Error 1 word, phase Running",
		},
		{
			name: "never-restarted", manifest: with(script("exit 4"), `"restartPolicy":"Never"`),
			told: endOf, want: "Failed: Error 4, restarts 0",
		},
		{
			name: "completed", manifest: with(script("exit 0"), `"restartPolicy":"OnFailure"`),
			told: endOf, want: "Succeeded: Completed 0, restarts 0",
		},
		{
			name:     "no-such-image",
			manifest: strings.Replace(script("exit 0"), "SHELL", "docker.io/nobody/knows:1", 1), told: waitingOf, want: "ImagePullBackOff, phase Pending",
		},
		{
			name: "never-pulled", told: waitingOf, want: "ErrImageNeverPull, phase Pending",
			manifest: strings.Replace(script("exit 0", `,"imagePullPolicy":"Never"`), "SHELL", "docker.io/nobody/knows:1", 1),
		},
		{
			name:     "waits-for-its-volume",
			manifest: strings.Replace(script(forever), `"emptyDir":{}`, `"configMap":{"name":"late"}`, 1), told: waitingOf, want: "ContainerCreating, phase Pending",
		},
		{
			name: "init-container-fails-for-good", told: phaseAndInit, want: "Failed, Error 3",
			manifest: with(script(forever), `"restartPolicy":"Never","initContainers":[{"name":"one","image":"SHELL","args":["exit 3"]}]`),
		},
		{
			name: "poststart-fails", told: waitingAndLast, want: "CrashLoopBackOff after Error 8, phase Running",
			manifest: script("trap 'exit 8' TERM; "+forever, `,"lifecycle":{"postStart":{"exec":{"command":["sh","-c","exit 1"]}}}`),
		},
		{
			name: "no-such-command", manifest: script("", `,"command":["no-such-program"]`), told: waitingAndLast,
			want: "CrashLoopBackOff after StartError 128, phase Running",
		},
		{
			name:     "no-such-secret",
			manifest: script(forever, `,"env":[{"name":"KEY","valueFrom":{"secretKeyRef":{"name":"late","key":"key"}}}]`),
			told:     waitingWords, want: `CreateContainerConfigError: secret "late" not found`,
		},
	}
}

// probed are pods that run, and are told to be ready or not, or to stop.
func probed() []rule {
	return []rule{
		{
			name: "init-containers-in-order",
			manifest: with(script("[ \\\"$(cat data/order)\\\" = onetwo ] && exec sleep 1000"), `"initContainers":[
				{"name":"one","image":"SHELL","args":["echo -n one >> data/order"],"volumeMounts":[{"name":"data","mountPath":"/data"}]},
				{"name":"two","image":"SHELL","args":["test -e data/failed || { touch data/failed; exit 1; }; echo -n two >> data/order"],
					"volumeMounts":[{"name":"data","mountPath":"/data"}]}]`),
			told: readiness, want: "ready, restarts 0 and before it 0 1",
		},
		{
			name: "gate-of-somebody-else", manifest: with(script(forever), `"readinessGates":[{"conditionType":"`+gate+`"}]`),
			told: readiness, want: "not ready: ReadinessGatesNotReady, restarts 0 and before it",
		},
		{
			name:     "readiness-waits-for-startup",
			manifest: script(forever, exec("startupProbe", "test -e data/never", `"periodSeconds":1,"failureThreshold":1000`), exec("readinessProbe", "true", `"periodSeconds":1`)),
			told:     readiness, want: "not ready: ContainersNotReady, restarts 0 and before it",
		},
		{
			name:     "ready-after-startup",
			manifest: script("sleep 1; touch data/up; "+forever, exec("startupProbe", "test -e data/up", `"periodSeconds":1,"failureThreshold":1000`), exec("readinessProbe", "test -e data/up", `"periodSeconds":1`)),
			told:     readiness, want: "ready, restarts 0 and before it",
		},
		{
			name:     "unready-by-its-probe",
			manifest: script("touch data/up; sleep 3; rm data/up; "+forever, exec("readinessProbe", "test -e data/up", `"periodSeconds":1,"failureThreshold":1`)),
			told:     readiness, want: "ready, then not ready: ContainersNotReady, restarts 0 and before it",
		},
		{
			name: "restarted-by-its-liveness",
			// It is asked to stop first.
			manifest: script("trap 'exit 9' TERM; test -e data/again || { touch data/again; "+forever+"; }; touch data/live; "+forever,
				exec("livenessProbe", "test -e data/live", `"periodSeconds":1,"failureThreshold":2`)),
			told: restarted, want: "ready, last Error 9, restarts 1",
		},
		{
			name: "stopped-after-prestop", deleted: true,
			manifest: with(script("trap 'test -e data/pre && exit 5; exit 6' TERM; "+forever,
				`,"lifecycle":{"postStart":{"exec":{"command":["sh","-c","touch data/start"]}},"preStop":{"exec":{"command":["sh","-c","test -e data/start && sleep 0.5 && touch data/pre"]}}}`,
			), `"restartPolicy":"Always"`),
			told: lastOf, want: "Error 5",
		},
		{
			name: "killed-after-its-grace", deleted: true, manifest: script("trap '' TERM; " + forever), told: lastOf, want: "Error 137",
		},
	}
}

// exec is a probe that runs a command.
func exec(kind, command, more string) string {
	return `,"` + kind + `":{"exec":{"command":["sh","-c","` + command + `"]},` + more + `}`
}
