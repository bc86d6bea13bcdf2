package main

// mutations are lines that hold an invariant or mend a fault. Add one when a fault is found that no test noticed.
func mutations() []mutation {
	return append(ofClients(), ofData()...)
}

const machine, evacuate, upgrade = "pkg/upgrade/machine/", "pkg/evacuate/", "pkg/upgrade/"

// ofClients are those that clients and serving depend on.
func ofClients() []mutation {
	return []mutation{
		{upgrade + "controller.go", "; stale {\n", "; stale && false {\n", "a cache that has not seen the last write is believed"},
		{machine + "decide.go", "	decision := stay(s, goal)\n	decision.Phase, decision.Why = phase, why\n", "	decision := do(s, goal, Lack{}, keepServices(s)...)\n	decision.Phase, decision.Why = phase, why\n	decision.Groups = append(decision.Groups, Group{ApplyHeadlessService{}})\n", "a handler acts and advances at once"},
		{machine + "revision.go", "core.Replicas, core.MinAvailable, core.MaxUnavailable = nil, nil, nil", "core.Replicas = nil", "minAvailable makes a revision"}, //nolint:dupword // It quotes code.
		{machine + "revision.go", "	wanted := intent{\n", "	core.Resources = v2beta1.EMQXReplicantTemplateSpec{}.Resources\n	wanted := intent{\n", "resources are left out of the revision"},
		{upgrade + "gather.go", "if !metav1.IsControlledBy(object, s.EMQX) && foreign(s, \"Service\", object, resources.ServiceEnabled(s.EMQX, kind)) {", "if false {", "a stranger's Service is taken"},
		{upgrade + "gather.go", "	if controller == nil && object.GetLabels()[v2beta1.LabelInstance] == s.EMQX.Name {\n		return false\n	}", "	if controller == nil {\n		return false\n	}", "an object that nothing controls is taken whatever its labels"},
		{machine + "phase_evacuating.go", "plan(s, pace.Tick, !held.None())", "plan(s, pace.Tick, false)", "no hold stops evictions"},
		{evacuate + "pace.go", "	most := max(1, limit/2)\n", "	most := max(1, limit*4)\n", "the tick is not bounded by the limit"},
		{evacuate + "pace.go", "pace.Away+unseen(input.SeenFor)*int64(pace.Tick) > limit ||", "pace.Away > limit ||", "a tick that was not seen yet is not counted"},
		{evacuate + "pace.go", "baseline-total > limit/10", "baseline-total > limit*10", "slow clients count as prompt"},
		{evacuate + "pace.go", "return last-lowest <= missing/10", "return true", "who comes back counts as departed"},
		{machine + "leaving.go", "	case node.Empty(), s.stopped(pod), overDeadline(s, pod):\n", "	case true:\n", "an occupied pod is removed"},
		{machine + "leaving.go", "!evacuationStarted(s, pod) || !welcome(s)", "!welcome(s)", "the deadline runs for a node that was never evacuated"},
		{machine + "leaving.go", "!evacuationStarted(s, pod) || !welcome(s)", "!evacuationStarted(s, pod)", "the deadline runs while nobody takes clients"},
		{machine + "leaving.go", "return node.Info.LiveConnections.Value > 0 || node.Info.Connections.Value > 0 || unknown", "return unknown", "what was noted counts more than clients that are there"},
		{machine + "clients.go", "	if lack := unobserved(s); !lack.None() {\n		return lack\n	}\n", "", "evictions go on while the Service does not lead to the target alone"},
		{machine + "clients.go", "	if lack := anySilent(s, upgrade.HeldReason); !lack.None() {\n		return lack\n	}\n", "", "evictions go on while a member is frozen"},
		{machine + "phase_provisioning.go", "	if lack := servingSilent(s); !lack.None() {\n		return wait(s, serve(s), lack)\n	}\n", "", "it is switched while a node with clients is silent"},
		{machine + "phase_provisioning.go", "	if groups := mark(s); len(groups) > 0 {", "	if groups := mark(s); false && len(groups) > 0 {", "a set is not marked before it serves"},
		{machine + "guards.go", "return advance(s, serve(s), v2beta1.PhasePending, why), true", "return advance(s, evacuation(s, plan(s, 1, false)), v2beta1.PhasePending, why), true", "a revert leaves evictions running"},
		{machine + "guards.go", "	hold(s, &decision.Upgrade, Lack{})\n	if decision.Upgrade.PausedTime == nil {", "	if decision.Upgrade.PausedTime == nil {", "a hold and a pause are both taken off"},
		{machine + "services.go", "	if !lost(s) || back == nil ||", "	if true || back == nil ||", "nobody goes back when the new nodes die"},
		{machine + "services.go", "set = s.set(s.currentRevision())", "set = nil", "a lost Service is not put back"},
		{machine + "budget.go", "set := s.set(s.currentRevision())", "set := s.targetSet(Core)", "nodes are protected before they serve, and those that serve are not"},
		{machine + "budget.go", "set.foreign() || exists && listeners.Revision == \"\"", "exists && false && listeners.Ours", "the budget of another operator is taken over before its set and its Services"},
		{machine + "upkeep.go", "case pod.OnServing && restarted(pod) && !in && !notAsked(s.node(pod)):", "case false:", "a container that was started again keeps its gate"},
		{machine + "upkeep.go", "case pod.OnServing && apart(s, pod):", "case pod.OnServing && !in:", "silence closes a gate"},
		{machine + "upkeep.go", "case set.Replicas > target.Replicas && !surplusServes(s, set):", "case false:", "a set that was scaled by hand stays so"},
		{machine + "upkeep.go", "case scaledDown(s, set), grows(s, set):", "case scaledDown(s, set):", "nodes that are asked for in mid-upgrade are not added"},
		{machine + "upkeep.go", "lone && left <= 0", "lone && left < 0 && false", "the last node of a cluster stays shut out"},
		{machine + "claims.go", "if left := letGo(s, set); len(left) > 0 {", "if left := letGo(s, set); false && len(left) > 0 {", "a node that was made to leave comes back with its data"},
		{machine + "claims.go", "if alone && s.lastServed() == revision {", "if alone && false {", "the data of a cluster whose set was lost is deleted"},
		{machine + "claims.go", "revisions[min(limit, len(revisions)):]", "revisions[min(limit+1, len(revisions)):]", "claims of a revision too many stay"},
		{machine + "leaving.go", "len(s.remaining(set)) == 0 && !set.PodsUnseen &&", "len(s.remaining(set)) == 0 &&", "a set is deleted whose pods were not seen"},
		{machine + "leaving.go", "(notAsked(node) || !resources.ServiceEnabled(s.EMQX, resources.Listeners))", "!resources.ServiceEnabled(s.EMQX, resources.Listeners)", "a set is removed before its nodes were asked"},
		{machine + "clients.go", "case s.stopped(pod), !node.Known() && s.unlisted(pod):", "case s.stopped(pod):", "clients of a stopped node count twice"},
		{evacuate + "absent.go", "if slices.Contains(members, member) || d.seen(member) {", "if false && len(members) > 0 {", "a member that runs is made to leave"},
		{evacuate + "look.go", "	case !state.ordering && state.ctx.Err() == nil", "	case false && state.ctx.Err() == nil", "a stop waits for a look at the node"},
		{evacuate + "node.go", "if err != nil && errors.Is(err, emqx.ErrSilent) && ctx.Err() == nil {", "if false {", "a node that moves sessions is called silent"},
		{"pkg/informers/predicates.go", "return before.UID != after.UID || !equality.Semantic.DeepEqual(before.Endpoints, after.Endpoints) || ownersChanged(before, after)", "return !equality.Semantic.DeepEqual(before.Endpoints, after.Endpoints)", "EndpointSlices that were made again wake nobody"},
		{machine + "upkeep.go", "if !needed[name] && s.ConfigMaps[name] == Current && s.ConfigError == nil {", "if false {", "ConfigMaps of old revisions are left"},
		{machine + "upkeep.go", "s.ConfigMaps[set.ConfigMap] == Missing && set.ConfigMap != \"\" && set.ConfigHash == s.ConfigHash", "s.ConfigMaps[set.ConfigMap] == Missing && set.ConfigMap != \"\"", "a lost configuration is guessed"},
		{machine + "readiness.go", "case !node.Available:\n		return Lack{nodeEvacuated", "case false:\n		return Lack{nodeEvacuated", "nodes that refuse clients are switched to"},
		{machine + "phase_done.go", "case nodeSilent, nodeNotAsked, unauthorized, forbidden, untrusted:", "case nodeNotAsked:", "silence at rest makes a healthy cluster NotReady"},
		{machine + "conditions.go", "case serving.Status != metav1.ConditionTrue:", "case false:", "a cluster without endpoints is Ready"},
		{machine + "status.go", "if blind(s) && d.Phase", "if false && d.Phase", "a restart of the operator changes every status"},
		{evacuate + "plan.go", "		// It needs no connection rate any more: the others may have its share.\n", "		p.conn -= connRate\n", "a node that waits for takeovers keeps its share"},
		{evacuate + "plan.go", "(input.ConnEvictRate + count - 1) / count, (input.SessEvictRate + count - 1) / count", "input.ConnEvictRate, input.SessEvictRate + 0*count", "a node never heard of takes the whole rate"},
		{evacuate + "plan.go", "	p.lower()\n", "", "lowered rates are not followed"},
		{evacuate + "plan.go", "	p.raise()\n", "	for _, node := range p.running {\n		p.evacuate(node.Name, node.connRate, node.sessRate)\n	}\n", "raised rates are not followed"},
		{evacuate + "driver.go", "(state.goal.URL != goal.URL || state.goal.Life != goal.Life)", "state.goal.URL != goal.URL", "what was known of a container counts for the next"},
		{machine + "snapshot.go", "node.Life == pod.Container", "node.Life != \"\"", "what was seen of a container counts for the next until its node is asked"},
		{machine + "phase_pending.go", " || UnderWay(s.EMQX.Status) || s.currentRevision()", " || s.currentRevision()", "an upgrade that began waits for others"},
		{machine + "cookies.go", "!pod.ContainerStarted.Before(s.Cookie.Written)", "pod.ContainerStarted.After(s.Cookie.Written)", "a second tells an order"},
		{upgrade + "writes.go", "order > 0 && written.UID == cached.UID", "order > 0", "the status of a resource that is gone counts for its successor"},
		{upgrade + "queued.go", "machine.UnderWay(emqx.Status) || q.entered[name]", "machine.UnderWay(emqx.Status)", "two upgrades begin in the last place"},
		{upgrade + "execute.go", ".WithResourceVersion(ref.ResourceVersion)", "", "a set is written whatever became of it"},
		{upgrade + "execute.go", "				break\n", "				return failures\n", "one refused write stops all others"},
		{upgrade + "fleet.go", "func (f *fleet) close(m *member) { f.closing.Go(m.driver.Close) }", "func (f *fleet) close(m *member) { m.driver.Close() }", "a worker waits for a driver to end"},
	}
}

// ofData are those that data depends on.
func ofData() []mutation {
	return []mutation{
		{machine + "leaving.go", "holding(s, set.Pods[i]); !lack.None() {", "holding(s, set.Pods[i]); false && !lack.None() {", "a core that holds replicas is removed"},
		{machine + "phase_provisioning.go", "if s.served(set) || !heldBack(s, set).None() {", "if s.served(set) {", "a set that never served is removed with its replicas"},
		{machine + "storage.go", "if s.endedByLicence() {", "if !s.served(set) {", "a replica is given up on a guess"},
		{machine + "gone.go", "!pod.Ready && !s.freshNode(pod).Known() && s.unlisted(pod)", "!pod.Ready && !s.freshNode(pod).Known()", "silence counts as the end by a licence"},
		{machine + "lostdisk.go", "!s.node(pod).Running():\n\t\t\treturn nil\n", "!s.node(pod).Running():\n\t\t\tcontinue\n", "replicas are given up while another that has them may come back"},
		{machine + "lostdisk.go", "s.Observation.Left[name] || !s.anyRuns()", "true", "a node is made while EMQX knows another disk by its name"},
		{machine + "storage.go", "	case !storage.Known():\n", "	case false:\n", "storage that nobody tells of counts as empty"},
		{machine + "storage.go", "storage.Failure == \"\" && storage.Seen.Before(since):", "false:", "storage as it was before the old nodes go counts"},
		{machine + "drain.go", "	left := occupied(s, *pod)\n", "	left := Lack{}\n", "a pod that leaves its Kubernetes node goes with its clients"},
		{machine + "drain.go", "	if led := s.ledTo(*pod); !led.None() {", "	if false {", "clients are led to a pod that they are moved off"},
		{machine + "storage.go", "!elsewhere(s) && allRun(s, s.staying()", "allRun(s, s.staying()", "replicas are moved to nodes that the Services do not lead to"},
		{evacuate + "keys.go", "if !errors.Is(err, emqx.ErrUnauthorized) {", "if true {", "what one API key is refused is not done with the other"},
		{evacuate + "loadkeys.go", "if silent := d.silent(); silent != \"\" {", "if silent := d.silent(); false {", "keys are changed beside a frozen member"},
		{machine + "keys.go", "scoped = scoped && knowsScopes(version)", "", "nodes that know no scopes get a file with scopes"},
		{machine + "leaving.go", "	case node.Refusal != \"\":\n		return refused(s, node)\n", "", "a node that refuses the key is called lost"},
		{evacuate + "absent.go", "return d.forgetSites(ctx, node, member)", "return \"\"", "the site of a node that has left is kept"},
		{evacuate + "storage.go", "d.answering(goal.Leaving); ok {", "d.answering(goal.Leaving); false && ok {", "a database that only leaving nodes have is overlooked"},
		{machine + "versions.go", "way == lossy && s.updateStrategy().PromotedRevision == target.Name()", "way == lossy && s.updateStrategy().PromotedRevision != \"\"", "consent to one revision counts for another"},
		{machine + "inplace.go", "pod.Deleting || set.PodsUnseen", "pod.Deleting", "a node is replaced before Kubernetes knows its new template"},
		{machine + "inplace.go", "other.ContainerRunning || other.ContainersReady", "false", "a node is replaced while another runs that it would join"},
		{machine + "inplace.go", "runs.ClusterDomain != wanted.ClusterDomain", "false", "a node is replaced in place under another name"},
		{machine + "licence.go", "target.Revision == \"\" || s.newcomer() != alone", "true", "nobody says that the licence allows one node"},
		{machine + "services.go", "if current == nil || back == nil ||", "if true ||", "Services stay at a lost side while a third revision is built"},
		{machine + "phase_provisioning.go", "set.ConfigHash != s.ConfigHash && !s.served(set)", "false && !s.served(set)", "a set that never ran is not made again with another configuration"},
	}
}
