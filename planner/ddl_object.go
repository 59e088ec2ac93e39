package planner

import (
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// objectKinds are the statements about objects that every shard must have as the home shard has them; true:
// they change or drop something that plans or tables may rest on.
var objectKinds = map[string]bool{
	"CreateSchemaStmt": false, "CreateEnumStmt": false, "CompositeTypeStmt": false, "CreateRangeStmt": false,
	"CreateDomainStmt": false, "DefineStmt": false, "CreateCastStmt": false, "CreateExtensionStmt": false,
	"CreateOpClassStmt": false, "CreateOpFamilyStmt": false, "CreateConversionStmt": false, "CreateTransformStmt": false,
	"CreatePLangStmt": false, "CreateRoleStmt": false, "AlterRoleStmt": false, "AlterRoleSetStmt": false, "DropRoleStmt": false,
	"GrantRoleStmt": false, "AlterEnumStmt": false, "AlterCollationStmt": false, "AlterTSConfigurationStmt": false,
	"AlterTSDictionaryStmt": false, "AlterDatabaseSetStmt": false, "AlterDatabaseStmt": false,
	"AlterFunctionStmt": true, "AlterTypeStmt": true, "AlterDomainStmt": true, "AlterExtensionStmt": true,
	"AlterExtensionContentsStmt": true, "AlterOpFamilyStmt": true, "AlterOperatorStmt": true, "DropOwnedStmt": true, "ReassignOwnedStmt": true,
}

// objectFields are the statements that say in a field what sort of object they are about.
var objectFields = map[string]struct {
	field  protoreflect.Name
	alters bool
}{
	"DropStmt": {"remove_type", true}, "RenameStmt": {"rename_type", true}, "AlterOwnerStmt": {"object_type", true},
	"AlterObjectSchemaStmt": {"object_type", true}, "AlterObjectDependsStmt": {"object_type", false},
	"CommentStmt": {"objtype", false}, "SecLabelStmt": {"objtype", false}, "GrantStmt": {"objtype", false},
}

// objectTypes are those sorts of objects, as the parse tree calls them.
const objectTypes = " ACCESS_METHOD AGGREGATE ATTRIBUTE CAST COLLATION CONVERSION DATABASE DOMAIN DOMCONSTRAINT EXTENSION FUNCTION LANGUAGE " +
	"OPCLASS OPERATOR OPFAMILY PROCEDURE ROLE ROUTINE SCHEMA TRANSFORM TSCONFIGURATION TSDICTIONARY TSPARSER TSTEMPLATE TYPE "

// aboutObjects reports whether a statement is about objects that every shard must have alike, and whether it
// alters what tables or plans may rest on.
func aboutObjects(m message) (objects, alters bool) {
	kind := kindName(m)
	switch kind {
	case "CreateFunctionStmt":
		return true, isReplace(m)
	case "CreateSchemaStmt":
		return !createsInside(m), false
	case "GrantStmt":
		if objectTypeOf(m, "targtype") == "ACL_TARGET_ALL_IN_SCHEMA" {
			return true, false
		}
	}
	if alters, ok := objectKinds[kind]; ok {
		return true, alters
	}
	f, ok := objectFields[kind]
	if !ok {
		return false, false
	}
	object := strings.TrimPrefix(objectTypeOf(m, f.field), "OBJECT_")
	return strings.Contains(objectTypes, " "+object+" "), f.alters
}

// replaces tells of a statement that alters objects whether it does so at all, and whether plans may rest on them. Who runs a
// statement while another one drops or renames what it calls gets an error on some shard; who calls a function
// that means something else on each shard gets a wrong answer.
func (a *analysis) replaces(m message) (alters, replaces bool) {
	switch kind := kindName(m); kind {
	case "CreateFunctionStmt": // OR REPLACE
		parts, ok := functionCreated(m)
		if !ok {
			return true, true
		}
		schema, name := qualified(parts)
		exists := len(a.env.Catalog.Function(schema, name, a.path)) > 0
		return exists, exists
	case "AlterFunctionStmt", "AlterExtensionStmt", "AlterExtensionContentsStmt":
		return true, true
	case "DropStmt", "RenameStmt", "AlterObjectSchemaStmt":
		for i := range a.env.Map.Tables { // a schema of theirs, perhaps
			if mentions(a.sql, a.env.Map.Tables[i].Name.Schema) {
				return true, true
			}
		}
		// Postgres does not drop what a table rests on, unless it is told to.
		return kind != "DropStmt" || mentions(a.sql, "cascade"), false
	}
	return true, false
}
