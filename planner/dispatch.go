package planner

// planStatement plans a statement by its kind.
func (a *analysis) planStatement(m message) (*Plan, *Error) {
	switch m := m.(type) {
	case *selectStmt, *insertStmt, *updateStmt, *deleteStmt:
		if plan := a.planCalls(m); plan != nil {
			return plan, nil
		}
	}
	switch m := m.(type) {
	case *selectStmt:
		a.combines = a.combines || m == a.root
		return a.planSelect(m)
	case *insertStmt:
		return a.planInsert(m)
	case *updateStmt:
		return a.planModification(m, "UPDATE")
	case *deleteStmt:
		return a.planModification(m, "DELETE")
	case *mergeStmt:
		return a.planModification(m, "MERGE")
	case *copyStmt:
		return a.planCopy(m)
	case *transactionStmt:
		return a.planTransaction(m)
	case *variableSetStmt:
		return planSet(m), nil
	case *prepareStmt:
		a.valuesUsed = true
		return a.planPrepare(m)
	case *executeStmt:
		return a.planExecute(m)
	case *explainStmt:
		return a.planExplain(m)
	case *declareStmt:
		return a.planDeclare(m)
	case *createTableAs:
		return a.planCreateAs(m)
	}
	return a.planOther(m)
}

// planOther plans what needs no more than the kind of the statement to tell.
func (a *analysis) planOther(m message) (*Plan, *Error) {
	switch kindName(m) {
	case "VariableShowStmt":
		return &Plan{Kind: Show, Tag: "SHOW", Name: lower(stringField(m, "name")), ReadOnly: true}, nil
	case "DiscardStmt":
		return planDiscard(m), nil
	case "DeallocateStmt":
		return &Plan{Kind: Deallocate, Tag: "DEALLOCATE", Name: stringField(m, "name"), ReadOnly: true}, nil
	case "FetchStmt":
		return planFetch(m), nil
	case "ClosePortalStmt":
		return &Plan{Kind: CloseCursor, Tag: "CLOSE CURSOR", Name: stringField(m, "portalname"), ReadOnly: true}, nil
	case "ListenStmt":
		return &Plan{Kind: Listen, Tag: "LISTEN", Name: stringField(m, "conditionname"), ReadOnly: true}, nil
	case "UnlistenStmt":
		return &Plan{Kind: Unlisten, Tag: "UNLISTEN", Name: stringField(m, "conditionname"), ReadOnly: true}, nil
	case "NotifyStmt":
		return &Plan{Kind: Notify, Tag: "NOTIFY", Name: stringField(m, "conditionname"), Route: Route{Kind: RouteHome}}, nil
	case "ConstraintsSetStmt":
		return &Plan{Kind: SetConstraints, Tag: "SET CONSTRAINTS", ReadOnly: true}, nil
	case "DoStmt":
		return a.planDo(m)
	case "CallStmt":
		return a.planCall(m)
	case "TruncateStmt", "LockStmt":
		return a.planTables(m)
	case "VacuumStmt", "ClusterStmt", "ReindexStmt":
		return a.planMaintenance(m)
	case "CheckPointStmt":
		return a.planCheckpoint(m), nil
	case "LoadStmt":
		return a.planHome(commandTag(m)), nil
	case "AlterSystemStmt":
		return a.planServer(m)
	case "CreateTableSpaceStmt", "DropTableSpaceStmt":
		return a.planTablespace(m)
	case "IndexStmt", "DropStmt":
		if plan, err := a.planConcurrently(m); plan != nil || err != nil {
			return plan, err
		}
	case "ViewStmt", "RuleStmt":
		return a.planView(m)
	case "CreatedbStmt", "DropdbStmt", "RenameStmt", "AlterDatabaseStmt", "AlterDatabaseSetStmt", "AlterOwnerStmt":
		if plan := a.planDatabase(m); plan != nil {
			return plan, nil
		}
	}
	return a.planDDL(m)
}
