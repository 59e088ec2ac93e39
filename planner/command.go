package planner

import (
	"strings"
)

// commandTags are the command tags of the statements that have one of their own.
var commandTags = map[string]string{
	"CreateStmt": "CREATE TABLE", "CreateForeignTableStmt": "CREATE FOREIGN TABLE", "ViewStmt": "CREATE VIEW",
	"IndexStmt": "CREATE INDEX", "CreateSeqStmt": "CREATE SEQUENCE", "AlterSeqStmt": "ALTER SEQUENCE",
	"CreateTrigStmt": "CREATE TRIGGER", "CreatePolicyStmt": "CREATE POLICY", "AlterPolicyStmt": "ALTER POLICY",
	"RuleStmt": "CREATE RULE", "CreateStatsStmt": "CREATE STATISTICS", "AlterStatsStmt": "ALTER STATISTICS",
	"CreateFunctionStmt": "CREATE FUNCTION", "AlterFunctionStmt": "ALTER FUNCTION", "CreateEnumStmt": "CREATE TYPE",
	"CompositeTypeStmt": "CREATE TYPE", "CreateRangeStmt": "CREATE TYPE", "AlterEnumStmt": "ALTER TYPE",
	"AlterTypeStmt": "ALTER TYPE", "CreateDomainStmt": "CREATE DOMAIN", "AlterDomainStmt": "ALTER DOMAIN",
	"CommentStmt": "COMMENT", "SecLabelStmt": "SECURITY LABEL", "RefreshMatViewStmt": "REFRESH MATERIALIZED VIEW",
	"CreateSchemaStmt": "CREATE SCHEMA", "CreateExtensionStmt": "CREATE EXTENSION", "AlterExtensionStmt": "ALTER EXTENSION",
	"AlterExtensionContentsStmt": "ALTER EXTENSION", "CreatedbStmt": "CREATE DATABASE", "DropdbStmt": "DROP DATABASE",
	"AlterDatabaseStmt": "ALTER DATABASE", "AlterDatabaseSetStmt": "ALTER DATABASE", "AlterDatabaseRefreshCollStmt": "ALTER DATABASE", "CreateRoleStmt": "CREATE ROLE",
	"AlterRoleStmt": "ALTER ROLE", "AlterRoleSetStmt": "ALTER ROLE", "DropRoleStmt": "DROP ROLE",
	"CreateCastStmt": "CREATE CAST", "CreateOpClassStmt": "CREATE OPERATOR CLASS", "CreateOpFamilyStmt": "CREATE OPERATOR FAMILY",
	"AlterOpFamilyStmt": "ALTER OPERATOR FAMILY", "AlterOperatorStmt": "ALTER OPERATOR", "CreateConversionStmt": "CREATE CONVERSION",
	"CreatePublicationStmt": "CREATE PUBLICATION", "AlterPublicationStmt": "ALTER PUBLICATION",
	"CreateSubscriptionStmt": "CREATE SUBSCRIPTION", "AlterSubscriptionStmt": "ALTER SUBSCRIPTION", "DropSubscriptionStmt": "DROP SUBSCRIPTION",
	"CreateEventTrigStmt": "CREATE EVENT TRIGGER", "AlterEventTrigStmt": "ALTER EVENT TRIGGER", "AlterDefaultPrivilegesStmt": "ALTER DEFAULT PRIVILEGES",
	"AlterCollationStmt": "ALTER COLLATION", "CreateTransformStmt": "CREATE TRANSFORM", "CreatePLangStmt": "CREATE LANGUAGE",
	"CreateAmStmt": "CREATE ACCESS METHOD", "CreateFdwStmt": "CREATE FOREIGN DATA WRAPPER", "CreateForeignServerStmt": "CREATE SERVER",
	"AlterForeignServerStmt": "ALTER SERVER", "CreateUserMappingStmt": "CREATE USER MAPPING", "AlterUserMappingStmt": "ALTER USER MAPPING",
	"DropUserMappingStmt": "DROP USER MAPPING", "ImportForeignSchemaStmt": "IMPORT FOREIGN SCHEMA", "AlterTSConfigurationStmt": "ALTER TEXT SEARCH CONFIGURATION",
	"AlterTSDictionaryStmt": "ALTER TEXT SEARCH DICTIONARY", "DropOwnedStmt": "DROP OWNED", "ReassignOwnedStmt": "REASSIGN OWNED",
	"CreateTableSpaceStmt": "CREATE TABLESPACE", "DropTableSpaceStmt": "DROP TABLESPACE", "AlterTableSpaceOptionsStmt": "ALTER TABLESPACE",
	"AlterSystemStmt": "ALTER SYSTEM", "TruncateStmt": "TRUNCATE TABLE", "LockStmt": "LOCK TABLE", "ClusterStmt": "CLUSTER", "ReindexStmt": "REINDEX",
	"CheckPointStmt": "CHECKPOINT", "LoadStmt": "LOAD", "ConstraintsSetStmt": "SET CONSTRAINTS",
}

// commandTag is the command tag of a statement.
func commandTag(m message) string {
	kind := kindName(m)
	if tag, ok := commandTags[kind]; ok {
		if kind == "CreateFunctionStmt" && isProcedure(m) {
			return "CREATE PROCEDURE"
		}
		return tag
	}
	switch kind {
	case "VacuumStmt":
		if isVacuum(m) {
			return "VACUUM"
		}
		return "ANALYZE"
	case "GrantStmt", "GrantRoleStmt":
		return grantTag(m)
	case "CreateTableAsStmt":
		return "CREATE " + createdObject(m) + " AS"
	case "DefineStmt":
		return "CREATE " + objectWord(objectTypeOf(m, "kind"))
	case "DropStmt":
		return "DROP " + objectWord(objectTypeOf(m, "remove_type"))
	case "RenameStmt":
		return "ALTER " + renamedObject(m)
	case "AlterTableStmt":
		return "ALTER " + objectWord(objectTypeOf(m, "objtype"))
	case "AlterOwnerStmt", "AlterObjectSchemaStmt", "AlterObjectDependsStmt":
		return "ALTER " + objectWord(objectTypeOf(m, "object_type"))
	}
	return strings.ToUpper(strings.TrimSuffix(kind, "Stmt"))
}

// objectWord is the word of a tag for an object type of the parse tree ("OBJECT_MATVIEW").
func objectWord(object string) string {
	switch word := strings.TrimPrefix(object, "OBJECT_"); word {
	case "MATVIEW":
		return "MATERIALIZED VIEW"
	case "TSCONFIGURATION":
		return "TEXT SEARCH CONFIGURATION"
	case "TSDICTIONARY":
		return "TEXT SEARCH DICTIONARY"
	case "TSPARSER":
		return "TEXT SEARCH PARSER"
	case "TSTEMPLATE":
		return "TEXT SEARCH TEMPLATE"
	case "FDW":
		return "FOREIGN DATA WRAPPER"
	case "OPCLASS":
		return "OPERATOR CLASS"
	case "OPFAMILY":
		return "OPERATOR FAMILY"
	case "STATISTIC_EXT":
		return "STATISTICS"
	case "FOREIGN_SERVER":
		return "SERVER"
	case "ATTRIBUTE":
		return "TYPE"
	case "DOMCONSTRAINT":
		return "DOMAIN"
	default:
		return strings.ReplaceAll(word, "_", " ")
	}
}

func renamedObject(m message) string {
	object := objectTypeOf(m, "rename_type")
	switch object {
	case "OBJECT_COLUMN", "OBJECT_TABCONSTRAINT":
		if relation := objectTypeOf(m, "relation_type"); object == "OBJECT_COLUMN" && relation != "OBJECT_TYPE_UNDEFINED" {
			return objectWord(relation)
		}
		return "TABLE"
	}
	return objectWord(object)
}
